"""Settings that change the outcome of an adaptation: part of a row's ``variant`` and of a run's identity."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, TypeGuard, get_args

from tinytrain_dist.adaptation.channel_criteria import CHANNEL_CRITERIA
from tinytrain_dist.costs.schemes import Scheme
from tinytrain_dist.execution.needs import DeviceName
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.graphs.update_plan import Side

Optimizer = Literal["adam", "sgd"]
Distance = Literal["cosine", "euclidean"]
FisherPoint = Literal["after_activation", "before_activation"]
ChannelRatio = float | Literal["auto"]
STUDIED_RATIOS = (1.0, 0.5, 0.25, 0.125)
"""Channel ratios TinyTrain studies; ``auto`` takes the largest under which the most layers fit."""
Mode = Literal["reference", "fast"]
Numerics = Literal["fp32", "bf16"]
Overflow = Literal["skip", "stop"]


@dataclass(frozen=True, kw_only=True)
class FineTuneSettings:
    """How the chosen weights are fine-tuned (TinyTrain, section 3; silent points decided here).

    Attributes
    ----------
    iterations
        Full passes over support and pseudo-query.
    learning_rate
        Fixed rate; the default was chosen on meta-validation classes only (emoji and icons, split valid).
    scale
        Factor of the logits; ``None`` takes the checkpoint's learned one for the cosine, 1 for the Euclidean distance.
    distance
        What the head compares features and prototypes by: ``cosine`` (PMF) or ``euclidean`` (ProtoNet's squared
        distance, here over the length of the feature).
    augment
        Whether the pseudo-query is an augmented copy of the support set (PMF) or a plain one.
    mode
        ``reference``: a fresh augmentation in every iteration. ``fast``: ``pool_views`` of them used in turn, so
        that the frozen layers run on each only once.
    numerics
        Arithmetic of the convolutions in mode ``fast``; mode ``reference`` is float32. Updated weights, optimizer,
        head and loss are float32 in either, and so is the Fisher pass above the layers it does not inspect.
    device
        Where the network runs in mode ``fast``: ``cpu``, or ``cuda``, a GPU of the worker. Images are loaded and
        augmented on the CPU either way.
    tasks_together
        Tasks of a worker whose tunings make their steps together on a GPU, where their plans are of one kind; changes
        no more than last digits, as a GPU does anyway.
    curve_every
        Iterations between two points of the learning curve; 0: none. Does not change the outcome.
    """

    iterations: int = 40
    learning_rate: float = 1e-3
    optimizer: Optimizer = "adam"
    momentum: float = 0.9
    scale: float | None = None
    distance: Distance = "cosine"
    augment: bool = True
    mode: Mode = "reference"
    pool_views: int = 10
    numerics: Numerics = "fp32"
    device: DeviceName = "cpu"
    tasks_together: int = 8
    curve_every: int = 0

    def __post_init__(self) -> None:
        _require(self.iterations >= 0, "finetune.iterations", self.iterations, "0 or more")
        check_rate(self.learning_rate)
        _one_of("finetune.optimizer", self.optimizer, get_args(Optimizer))
        _one_of("finetune.distance", self.distance, get_args(Distance))
        _one_of("finetune.mode", self.mode, get_args(Mode))
        _one_of("finetune.numerics", self.numerics, get_args(Numerics))
        _one_of("finetune.device", self.device, get_args(DeviceName))
        is_fast = self.mode == "fast"
        _require(is_fast or self.numerics == "fp32", "finetune.numerics", self.numerics, "fp32, in mode reference")
        _require(is_fast or self.device == "cpu", "finetune.device", self.device, "cpu, in mode reference")
        _require(self.tasks_together >= 1, "finetune.tasks_together", self.tasks_together, "1 or more")
        _require(self.pool_views >= 1, "finetune.pool_views", self.pool_views, "1 or more")
        _require(self.curve_every >= 0, "finetune.curve_every", self.curve_every, "0 or more")
        _require(0 <= self.momentum < 1, "finetune.momentum", self.momentum, "0 to below 1")
        _require(self.scale is None or 0 < self.scale < math.inf, "finetune.scale", self.scale, "above 0, or null")

    @property
    def num_together(self) -> int:
        """Tasks whose tunings make their steps together at most: on the CPU each is alone."""
        return self.tasks_together if self.device == "cuda" else 1


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How layers and channels are chosen per task (Eq. 3 and Algorithm 1).

    Attributes
    ----------
    criterion
        Name of the layer score.
    inspect_blocks
        Fisher information is measured in the last so many blocks (and the mix layer).
    fisher_point
        Where Fisher information is measured: after the activation, or before it (after normalisation).
    channel_criterion
        Order of a layer's channels: ``fisher`` (Delta), ``l2_norm`` (of their weights) or ``random``. Input channels
        have no Delta: there ``fisher`` means the weight norm, as in MCUNetV3. Other packages may add some.
    channel_ratio
        Share of a selected layer's channels that is updated; ``auto``: the largest of ``STUDIED_RATIOS`` under which
        the most layers fit.
    device_ratios
        (device, ratio) of the devices with a ratio of their own.
    side
        Axis the channels count on: ``output`` (TinyTrain) or ``input`` (MCUNetV3).
    scheme
        Static scheme of ``sparse_update``; ``None``: the shipped default of the backbone.
    compute_share
        Backward budget as a share of FullTrain's backward MACs.
    memory_bytes
        Memory budget of every device; ``None`` takes each device's own free memory.
    """

    criterion: str = "full"
    inspect_blocks: int = 6
    fisher_point: FisherPoint = "after_activation"
    channel_criterion: str = "fisher"
    channel_ratio: ChannelRatio = 0.5
    device_ratios: tuple[tuple[str, ChannelRatio], ...] = ()
    side: Side = "output"
    scheme: Scheme | None = None
    on_overflow: Overflow = "skip"
    compute_share: float = 0.15
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        _require(self.inspect_blocks >= 1, "selection.inspect_blocks", self.inspect_blocks, "1 or more")
        _check_ratio("selection.channel_ratio", self.channel_ratio)
        for device, ratio in self.device_ratios:
            _check_ratio(f"selection.device_ratios.{device}", ratio)
        _one_of("selection.fisher_point", self.fisher_point, get_args(FisherPoint))
        _one_of("selection.channel_criterion", self.channel_criterion, tuple(CHANNEL_CRITERIA))
        _one_of("selection.side", self.side, get_args(Side))
        _one_of("selection.on_overflow", self.on_overflow, get_args(Overflow))
        is_share = _is_number(self.compute_share) and 0 < self.compute_share <= 1
        _require(is_share, "budget.compute_share", self.compute_share, "above 0, up to 1")
        memory = self.memory_bytes
        is_bytes = isinstance(memory, int) and not isinstance(memory, bool) and memory > 0
        words = "a whole number of bytes above 0, without a unit, or null"
        _require(memory is None or is_bytes, "budget.memory_bytes", memory, words)

    def ratio_on(self, device: str) -> ChannelRatio:
        """Return the channel ratio of ``device``: its own where it has one."""
        return dict(self.device_ratios).get(device, self.channel_ratio)

    def of_selection(self) -> dict[str, object]:
        """Return what decides the plans of ``tinytrain``, name to value."""
        return {key: value for key, value in asdict(self).items() if key != "scheme"}


def check_rate(value: object, *, key: str = "finetune.learning_rate", allowed: str = "") -> None:
    """Raise ``ConfigError`` unless ``value`` is a learning rate."""
    _require(_is_number(value) and 0 < value < 10, key, value, f"above 0, below 10{allowed}")


def _check_ratio(key: str, value: object) -> None:
    holds = value == "auto" or (_is_number(value) and 0 < value <= 1)
    _require(holds, key, value, "above 0, up to 1, or auto")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_of(key: str, found: str, names: tuple[str, ...]) -> None:
    if found not in names:
        close = nearest(str(found), names)
        hint = f"; {close}" if close.startswith("did you mean") else ""
        raise ConfigError(f"{key}: found {found!r}; allowed: {', '.join(names)}{hint}")


def _require(holds: bool, key: str, found: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{key}: found {found!r}; allowed: {allowed}")
