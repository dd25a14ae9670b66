"""One thread per worker: a CPU of the cluster is one core, and results do not depend on a thread count."""

from __future__ import annotations

import os
import sys

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def use_one_thread() -> None:
    """Keep torch and OpenMP to one thread, whether torch is loaded already or will be later."""
    for name in _VARIABLES:
        os.environ[name] = "1"
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)
        assert torch.get_num_threads() == 1, "torch ignores set_num_threads(1)"
