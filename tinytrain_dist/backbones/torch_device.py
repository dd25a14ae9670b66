"""The torch device a network runs on, set up for numbers that are float32 all through."""

from __future__ import annotations

import torch

from tinytrain_dist.execution.needs import DeviceName
from tinytrain_dist.foundation.errors import ConfigError


def torch_device(name: DeviceName, *, key: str = "device") -> torch.device:
    """Return the device, set up for this process: no TF32, sums in float32, and cuDNN's deterministic kernels.

    Parameters
    ----------
    key
        The setting that asks for it. ``ConfigError`` names it where this process sees no GPU; nothing is ever computed
        elsewhere instead.
    """
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"{key}: found cuda, but torch {torch.__version__} sees no GPU in the worker's process; set it to "
                "cpu, or install a CUDA build of torch where the workers run"
            )
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cudnn.deterministic = True
    return torch.device(name)
