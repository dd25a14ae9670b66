"""What a process that computes needs: one thread (a CPU of the cluster is one core, and results must not depend
on a thread count), and memory that is kept for the next step.
"""

from __future__ import annotations

import ctypes
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


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_KEEP_BELOW_BYTES, _NEVER = 1 << 30, (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors; it would return each to the kernel and fault it in again.

    A training step of a small network takes a quarter less time. Without glibc: nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _KEEP_BELOW_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
