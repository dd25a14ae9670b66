"""The words of a job of seconds, for pages whose commands need a run."""

from __future__ import annotations

TINY = (
    "backbone.resolution=32",
    "data.domains=[signs,flags]",
    "episodes.num_tasks=1",
    "methods=[none,last_layer,tinytrain]",
    "devices.names=[stm32h743,raspberry_pi_zero_2]",
    "finetune.iterations=1",
    "finetune.curve_every=1",
    "wandb.mode=disabled",
    "executor.kind=serial",
)
