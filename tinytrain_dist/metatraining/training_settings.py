"""``TrainingSettings``: what every stage of training shares: optimizer, schedule, validation, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.execution.needs import DeviceName
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.metatraining.compute import Compute, PrecisionName

OptimizerName = Literal["sgd", "adam"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of one training in rounds; hashable, checked when made.

    Attributes
    ----------
    backbone, resolution
        Registered backbone, and the pixels of its images.
    domains
        (name, weight) of each source domain.
    optimizer, momentum
        ``sgd`` with this momentum, or ``adam``.
    learning_rate, final_learning_rate, warmup_share
        Peak, reached linearly from ``final_learning_rate`` over this share of the rounds, then cosine back to it.
    weight_decay
        Of convolution weights; normalisation and the head have none.
    gradient_clip
        Largest global norm of the network's averaged gradient (the head's is left as it is); 0: none.
    norm_momentum
        Share by which a round's batch statistics move the running ones.
    scale, learn_scale
        Scale of the cosine head at the start, and whether it is trained.
    seed
        Of weights, batches and augmentation.
    initial_weights
        Checkpoint file to start from; None: weights drawn from ``seed``.
    validation_every, validation_episodes, validation_way, validation_shot, validation_query
        Rounds between two validations (0: only at the end), episodes per domain from classes never trained on,
        and their shape.
    validation_domains
        Domains to validate on besides the source domains' held-out classes, with all their classes.
    keep_best, patience
        Whether the weights of the best validation (mean over domains) become the final ones, and after how many
        validations without a better one the training stops (0: never).
    checkpoint_every, checkpoints_kept
        Rounds between two checkpoints, and how many stay. They do not change the result.
    device, precision
        Of the workers' networks (``Compute``). Only ``cpu`` and ``fp32`` give the same bits for any workers.
    """

    SECTION: ClassVar[str] = "training"
    NOT_DECIDING: ClassVar[tuple[str, ...]] = ("initial_weights", "checkpoint_every", "checkpoints_kept")
    DECIDING_UNLESS: ClassVar[Mapping[str, object]] = {"device": "cpu", "precision": "fp32"}
    """Settings that came later: at these values they are as for runs that did not have them, and not named."""

    backbone: str = "mobilenet_v2"
    resolution: int = 84
    domains: tuple[tuple[str, float], ...] = (("emoji", 1.0), ("icons", 1.0))
    optimizer: OptimizerName = "adam"
    momentum: float = 0.9
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    gradient_clip: float = 0.0
    norm_momentum: float = 0.1
    scale: float = 10.0
    learn_scale: bool = True
    seed: int = 0
    initial_weights: str | None = None
    validation_every: int = 0
    validation_episodes: int = 50
    validation_way: int = 5
    validation_shot: int = 5
    validation_query: int = 10
    validation_domains: tuple[str, ...] = ()
    keep_best: bool = False
    patience: int = 0
    checkpoint_every: int = 50
    checkpoints_kept: int = 3
    device: DeviceName = "cpu"
    precision: PrecisionName = "fp32"

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(OptimizerName):
            near = nearest(str(self.optimizer), get_args(OptimizerName))
            raise ConfigError(f"{self.SECTION}.optimizer: unknown {self.optimizer!r}; {near}")
        for key, allowed in (("device", get_args(DeviceName)), ("precision", get_args(PrecisionName))):
            if (found := getattr(self, key)) not in allowed:
                raise ConfigError(f"{self.SECTION}.{key}: unknown {found!r}; {nearest(str(found), allowed)}")
        for key in ("checkpoint_every", "checkpoints_kept"):
            self.check(key, low=1)
        for key in ("validation_every", "patience", "weight_decay", "gradient_clip", "final_learning_rate"):
            self.check(key, low=0)
        self.check("validation_episodes", low=2)
        for key in ("warmup_share", "norm_momentum"):
            self.check(key, low=0, high=1)
        self.check("momentum", low=0, high=0.9999)
        self.check("learning_rate", low=self.final_learning_rate)
        self.check("scale", low=1e-3)
        if (self.keep_best or self.patience) and not self.validation_every:
            raise ConfigError(f"{self.SECTION}.keep_best and patience need validations; set validation_every above 0")
        self._check_domains()

    def _check_domains(self) -> None:
        names = [name for name, _ in self.domains]
        if not names or len(set(names)) != len(names) or any(not 0 < weight < math.inf for _, weight in self.domains):
            raise ConfigError(
                f"{self.SECTION}.domains: found {list(self.domains)}; allowed: distinct names, finite weights above 0"
            )
        if both := sorted(set(names) & set(self.validation_domains)):
            raise ConfigError(f"{self.SECTION}.validation_domains: {', '.join(both)} is a source domain; name others")

    def check(self, key: str, *, low: float, high: float = float("inf")) -> None:
        """Raise ``ConfigError`` naming ``key`` unless its value is within ``low`` to ``high``."""
        value = getattr(self, key)
        if not (low <= value <= high and math.isfinite(value)):
            upper = f" to {high:g}" if high != float("inf") else " or more"
            raise ConfigError(f"{self.SECTION}.{key}: found {value!r}; allowed: {low:g}{upper}")

    @property
    def compute(self) -> Compute:
        """Where the workers' networks run."""
        return Compute(device=self.device, precision=self.precision)

    @property
    def validation(self) -> EpisodeSettings:
        """Sampler of the validation episodes."""
        return EpisodeSettings(
            way=self.validation_way, shot=self.validation_shot, query=self.validation_query, clamp_way=True
        )

    def initial_path(self) -> Path | None:
        """Absolute path of the checkpoint to start from."""
        return None if self.initial_weights is None else Path(self.initial_weights).expanduser().resolve()

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the final weights, JSON-ready; content hashes replace paths elsewhere."""
        unused = () if self.keep_best or self.patience else _ONLY_VALIDATION
        as_before = [key for key, value in self.DECIDING_UNLESS.items() if getattr(self, key) == value]
        left_out = {*self.NOT_DECIDING, *unused, *as_before}
        return {key: value for key, value in asdict(self).items() if key not in left_out}


_ONLY_VALIDATION = (
    "validation_every", "validation_episodes", "validation_way", "validation_shot", "validation_query",
    "validation_domains", "keep_best", "patience",
)  # fmt: skip
"""Without early stop and best checkpoint a validation only watches."""
