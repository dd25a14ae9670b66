"""Settings that change the outcome of an adaptation: part of a row's ``variant`` and of a run's identity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.update_plan import Side

Optimizer = Literal["adam", "sgd"]
Mode = Literal["reference", "fast"]
Overflow = Literal["skip", "stop"]


@dataclass(frozen=True, kw_only=True)
class FineTuneSettings:
    """How the chosen weights are fine-tuned (TinyTrain, section 3; silent points decided here).

    Attributes
    ----------
    iterations
        Full passes over support and pseudo-query.
    learning_rate
        Fixed rate; the default was chosen on meta-validation classes only.
    scale
        Factor of the cosine logits; ``None`` takes the checkpoint's learned one.
    augment
        Whether the pseudo-query is an augmented copy of the support set (PMF) or a plain one.
    mode
        ``reference``: a fresh augmentation in every iteration. ``fast``: ``pool_views`` of them used in turn, so
        that the frozen layers run on each only once.
    curve_every
        Iterations between two points of the learning curve; 0: none. Does not change the outcome.
    """

    iterations: int = 40
    learning_rate: float = 3e-3
    optimizer: Optimizer = "adam"
    momentum: float = 0.9
    scale: float | None = None
    augment: bool = True
    mode: Mode = "reference"
    pool_views: int = 8
    curve_every: int = 0

    def __post_init__(self) -> None:
        _require(self.iterations >= 0, "finetune.iterations", self.iterations, "0 or more")
        _require(0 < self.learning_rate < 10, "finetune.learning_rate", self.learning_rate, "above 0, below 10")
        _require(self.optimizer in ("adam", "sgd"), "finetune.optimizer", self.optimizer, "adam, sgd")
        _require(self.mode in ("reference", "fast"), "finetune.mode", self.mode, "reference, fast")
        _require(self.pool_views >= 1, "finetune.pool_views", self.pool_views, "1 or more")
        _require(self.curve_every >= 0, "finetune.curve_every", self.curve_every, "0 or more")
        _require(0 <= self.momentum < 1, "finetune.momentum", self.momentum, "0 to below 1")
        _require(self.scale is None or 0 < self.scale < math.inf, "finetune.scale", self.scale, "above 0, or null")


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How layers and channels are chosen per task (Eq. 3 and Algorithm 1).

    Attributes
    ----------
    criterion
        Name of the layer score.
    inspect_blocks
        Fisher information is measured in the last so many blocks (and the mix layer).
    channel_ratio
        Share of a selected layer's channels that is updated.
    side
        ``output``: channels of largest Delta; ``input``: input channels of largest weight norm (MCUNetV3).
    compute_share
        Backward budget as a share of FullTrain's backward MACs.
    memory_bytes
        Memory budget of every device; ``None`` takes each device's own free memory.
    """

    criterion: str = "full"
    inspect_blocks: int = 6
    channel_ratio: float = 0.5
    side: Side = "output"
    on_overflow: Overflow = "skip"
    compute_share: float = 0.15
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        _require(self.inspect_blocks >= 1, "selection.inspect_blocks", self.inspect_blocks, "1 or more")
        _require(0 < self.channel_ratio <= 1, "selection.channel_ratio", self.channel_ratio, "above 0, up to 1")
        _require(self.side in ("output", "input"), "selection.side", self.side, "output, input")
        _require(self.on_overflow in ("skip", "stop"), "selection.on_overflow", self.on_overflow, "skip, stop")
        _require(0 < self.compute_share <= 1, "budget.compute_share", self.compute_share, "above 0, up to 1")
        memory = self.memory_bytes
        _require(
            memory is None or memory > 0, "budget.memory_bytes", memory, "a whole number of bytes above 0, or null"
        )


def _require(holds: bool, key: str, found: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{key}: found {found!r}; allowed: {allowed}")
