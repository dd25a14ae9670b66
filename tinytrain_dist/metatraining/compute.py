"""``Compute``: the device and precision a worker's network runs in. The reference is the CPU in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import torch

from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.foundation.errors import ConfigError

DeviceName = Literal["cpu", "cuda"]
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
        if self.device == "cuda":
            if not torch.cuda.is_available():
                raise ConfigError(
                    f"device: found cuda, but torch {torch.__version__} sees no GPU in the worker's process; set it to "
                    "cpu, or install a CUDA build of torch where the workers run"
                )
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.deterministic = True
        return torch.device(self.device)

    def casting(self) -> AbstractContextManager[object]:
        """Return the block in which a network runs."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")


REFERENCE = Compute()


def executor_for(compute: Compute, executor: ExecutorSettings) -> ExecutorSettings:
    """Return the executor whose workers have a GPU each where one is needed and no share of one is asked for."""
    if compute.device != "cuda" or executor.needs.num_gpus > 0:
        return executor
    return replace(executor, needs=replace(executor.needs, num_gpus=1.0))
