"""Which arithmetic a tuning runs in, decided by what CPU or GPU say of themselves, never by a measurement.

``bf16`` keeps the exponent of float32 and eight of the 24 bits of its mantissa: what flows between layers takes half
the memory, sums inside an operation stay float32. Operations follow the type of the maps they are given: in bfloat16
they take rounded weights (``FoldedNetwork.weights``), in float32 the weights as they are.
"""

from __future__ import annotations

from functools import cache

import torch

from tinytrain_dist.adaptation.settings import FineTuneSettings, Numerics
from tinytrain_dist.backbones.torch_device import torch_device
from tinytrain_dist.execution.needs import DeviceName
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


def gpu_has_bf16() -> bool:
    """Return whether this process sees a GPU with instructions for bf16; PyTorch would emulate it on others."""
    return torch.cuda.is_available() and bool(torch.cuda.is_bf16_supported(including_emulation=False))


def best_numerics(device: DeviceName = "cpu") -> Numerics:
    """Return what mode ``fast`` is to run in here: bf16 where the device has matrix units for it."""
    if device == "cuda":
        return "bf16" if gpu_has_bf16() else "fp32"
    return "fp32" if capabilities().isdisjoint(FAST_INSTRUCTIONS) else "bf16"


def check_machine(settings: FineTuneSettings) -> None:
    """Raise ``ConfigError`` where this process has no such device, or one without instructions for the arithmetic."""
    torch_device(settings.device, key="finetune.device")
    if settings.numerics != "bf16":
        return
    words = "finetune.numerics: found 'bf16', but"
    if settings.device == "cuda" and not gpu_has_bf16():
        raise ConfigError(f"{words} {torch.cuda.get_device_name()} has no instructions for it; allowed: fp32")
    if settings.device == "cpu" and not has_bf16():
        raise ConfigError(f"{words} the CPU of this machine has neither {' nor '.join(INSTRUCTIONS)}; allowed: fp32")


def type_of_maps(numerics: Numerics, *, weights: torch.dtype) -> torch.dtype:
    """Return the type of the maps between layers: bfloat16, or that of the ``weights``."""
    return torch.bfloat16 if numerics == "bf16" else weights
