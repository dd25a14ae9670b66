"""How maps lie in memory, and whether an operation runs for one task or, under ``torch.vmap``, for several at once."""

from __future__ import annotations

import torch
from torch import Tensor


def is_of_many_tasks(x: Tensor) -> bool:
    """Return whether ``x`` is one task's share of the tensor of several (``torch.vmap``): its memory is not its own."""
    return torch._C._functorch.is_batchedtensor(x)


def channels_last(x: Tensor) -> Tensor:
    """Return ``[N, C, H, W]`` as channels_last; PyTorch has no such layout under ``vmap``, there just contiguous."""
    return x.contiguous() if is_of_many_tasks(x) else x.contiguous(memory_format=torch.channels_last)
