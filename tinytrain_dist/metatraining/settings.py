"""``MetaTrainSettings``: everything that decides the weights a meta-training ends with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.foundation.errors import ConfigError, nearest

OptimizerName = Literal["sgd", "adam"]
Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class MetaTrainSettings:
    """Settings of one meta-training; hashable, checked when made.

    Attributes
    ----------
    backbone, resolution
        Registered backbone, and the pixels of its images.
    domains
        (name, weight) of each source domain; an episode comes from a domain with probability of its weight.
    way, shot, query
        Smallest and largest number of classes, support and query images per class; each episode draws its own.
    num_episodes
        Training episodes in all; rounded up to whole rounds.
    episodes_per_round
        Episodes whose gradients are averaged into one optimizer step, whatever the number of workers.
    optimizer, momentum
        ``sgd`` with this momentum, or ``adam``.
    learning_rate, final_learning_rate, warmup_share
        Peak, reached linearly from ``final_learning_rate`` over this share of the rounds, then cosine back to it.
    weight_decay
        Of convolution weights; normalisation and the head's scale have none.
    gradient_clip
        Largest global norm of the averaged gradient; 0: none.
    norm_momentum
        Share by which a round's batch statistics move the running ones.
    augment
        Augment support and query images.
    scale, learn_scale
        Scale of the cosine head at the start, and whether it is trained.
    seed
        Of weights, episodes and augmentation.
    initial_weights
        Checkpoint file to start from; None: weights drawn from ``seed``.
    validation_every, validation_episodes, validation_way, validation_shot, validation_query
        Rounds between two validations (0: only at the end), episodes per domain from classes never trained on,
        and their shape.
    checkpoint_every, checkpoints_kept
        Rounds between two checkpoints, and how many stay. They do not change the result.
    """

    backbone: str = "mobilenet_v2"
    resolution: int = 84
    domains: tuple[tuple[str, float], ...] = (("emoji", 1.0), ("icons", 1.0))
    way: Range = (5, 5)
    shot: Range = (1, 5)
    query: Range = (15, 15)
    num_episodes: int = 2000
    episodes_per_round: int = 8
    optimizer: OptimizerName = "adam"
    momentum: float = 0.9
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    gradient_clip: float = 0.0
    norm_momentum: float = 0.1
    augment: bool = True
    scale: float = 10.0
    learn_scale: bool = True
    seed: int = 0
    initial_weights: str | None = None
    validation_every: int = 0
    validation_episodes: int = 50
    validation_way: int = 5
    validation_shot: int = 5
    validation_query: int = 10
    checkpoint_every: int = 50
    checkpoints_kept: int = 3

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(OptimizerName):
            near = nearest(str(self.optimizer), get_args(OptimizerName))
            raise ConfigError(f"meta_train.optimizer: unknown {self.optimizer!r}; {near}")
        for key, least in (("way", 2), ("shot", 1), ("query", 1)):
            low, high = getattr(self, key)
            if not least <= low <= high:
                raise ConfigError(f"meta_train.{key}: found [{low}, {high}]; allowed: {least} <= smallest <= largest")
        for key in ("num_episodes", "episodes_per_round", "checkpoint_every", "checkpoints_kept"):
            _check(key, getattr(self, key), low=1)
        for key in ("validation_every", "weight_decay", "gradient_clip", "final_learning_rate"):
            _check(key, getattr(self, key), low=0)
        _check("validation_episodes", self.validation_episodes, low=2)
        _check("warmup_share", self.warmup_share, low=0, high=1)
        _check("norm_momentum", self.norm_momentum, low=0, high=1)
        _check("momentum", self.momentum, low=0, high=0.9999)
        _check("learning_rate", self.learning_rate, low=self.final_learning_rate)
        _check("scale", self.scale, low=1e-3)
        names = [name for name, _ in self.domains]
        if not names or len(set(names)) != len(names) or any(not weight > 0 for _, weight in self.domains):
            raise ConfigError(
                f"meta_train.domains: found {list(self.domains)}; allowed: distinct names, weights above 0"
            )

    @property
    def num_rounds(self) -> int:
        """Optimizer steps."""
        return -(-self.num_episodes // self.episodes_per_round)

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
        values = asdict(self)
        for key in _NOT_DECIDING:
            del values[key]
        return values


_NOT_DECIDING = (
    "initial_weights", "validation_every", "validation_episodes", "validation_way", "validation_shot",
    "validation_query", "checkpoint_every", "checkpoints_kept",
)  # fmt: skip


def _check(key: str, value: float, *, low: float, high: float = float("inf")) -> None:
    if not low <= value <= high:
        upper = f" to {high:g}" if high != float("inf") else " or more"
        raise ConfigError(f"meta_train.{key}: found {value!r}; allowed: {low:g}{upper}")
