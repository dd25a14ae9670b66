"""Which arithmetic a tuning runs in, decided by what the CPU says of itself, never by a measurement.

``bf16`` keeps the exponent of float32 and eight of the 24 bits of its mantissa: what flows between layers takes half
the memory, sums inside an operation stay float32. Operations follow the type of the maps they are given: in bfloat16
they take rounded weights (``FoldedNetwork.weights``), in float32 the weights as they are.
"""

from __future__ import annotations

from functools import cache

import torch

from tinytrain_dist.adaptation.settings import Numerics
from tinytrain_dist.foundation.errors import ConfigError

INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
FAST_INSTRUCTIONS = ("amx_bf16",)
"""Those that multiply bf16 faster than float32. ``avx512_bf16`` alone reached half the rate of float32 on the server
core it was measured on (docs/adaptation.md)."""


@cache
def capabilities() -> frozenset[str]:
    """Return the names of what PyTorch says this CPU can do; empty where it does not say."""
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return frozenset(name for name, value in found.items() if value is True)


def has_bf16() -> bool:
    """Return whether the CPU has instructions for bf16: without them PyTorch emulates it."""
    return not capabilities().isdisjoint(INSTRUCTIONS)


def best_numerics() -> Numerics:
    """Return what mode ``fast`` is fastest in on this CPU: bf16 where there are matrix units for it."""
    return "fp32" if capabilities().isdisjoint(FAST_INSTRUCTIONS) else "bf16"


def check_numerics(numerics: Numerics) -> None:
    """Raise ``ConfigError`` where this machine's CPU has no instructions for ``numerics``."""
    if numerics == "bf16" and not has_bf16():
        words = "finetune.numerics: found 'bf16', but the CPU of this machine has neither"
        raise ConfigError(f"{words} {' nor '.join(INSTRUCTIONS)}; allowed: fp32")


def type_of_maps(numerics: Numerics, *, weights: torch.dtype) -> torch.dtype:
    """Return the type of the maps between layers: bfloat16, or that of the ``weights``."""
    return torch.bfloat16 if numerics == "bf16" else weights
