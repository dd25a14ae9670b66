"""``Compute``: the device and precision a worker's network runs in. The reference is the CPU in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from tinytrain_dist.backbones.torch_device import torch_device
from tinytrain_dist.execution.needs import DeviceName

PrecisionName = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how exactly a worker computes.

    Attributes
    ----------
    device
        ``cpu``, or ``cuda``: the GPU that the worker's process sees first.
    precision
        ``fp32``, without TF32; or ``bf16``: weights, gradients and head in float32, maps in bfloat16.
    """

    device: DeviceName = "cpu"
    precision: PrecisionName = "fp32"

    def torch_device(self) -> torch.device:
        """Return the device, set up for this process; raises ``ConfigError`` if it is not there."""
        return torch_device(self.device)

    def casting(self) -> AbstractContextManager[object]:
        """Return the block in which a network runs."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")


REFERENCE = Compute()
