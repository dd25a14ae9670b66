"""``MetaTrainSettings``: everything that decides the weights a meta-training ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.metatraining.training_settings import TrainingSettings

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class MetaTrainSettings(TrainingSettings):
    """Settings of one meta-training (and those of ``TrainingSettings``).

    Attributes
    ----------
    way, shot, query
        Smallest and largest number of classes, support and query images per class; each episode draws its own.
    num_episodes
        Training episodes in all; rounded up to whole rounds. A round takes each domain by its weight.
    episodes_per_round
        Episodes whose gradients are averaged into one optimizer step, whatever the number of workers.
    episodes_per_forward
        Episodes that pass the network together, each normalised by its own images: fewer and larger steps for a GPU.
    augment
        Augment support and query images.
    """

    SECTION: ClassVar[str] = "meta_train"
    DECIDING_UNLESS: ClassVar[Mapping[str, object]] = {**TrainingSettings.DECIDING_UNLESS, "episodes_per_forward": 1}

    way: Range = (5, 5)
    shot: Range = (1, 5)
    query: Range = (15, 15)
    num_episodes: int = 2000
    episodes_per_round: int = 8
    episodes_per_forward: int = 1
    augment: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("way", 2), ("shot", 1), ("query", 1)):
            low, high = getattr(self, key)
            if not least <= low <= high:
                raise ConfigError(f"meta_train.{key}: found [{low}, {high}]; allowed: {least} <= smallest <= largest")
        for key in ("num_episodes", "episodes_per_round", "episodes_per_forward"):
            self.check(key, low=1)
        if self.episodes_per_round % self.episodes_per_forward:
            raise ConfigError(
                f"meta_train.episodes_per_forward: found {self.episodes_per_forward}; allowed: a number that divides "
                f"meta_train.episodes_per_round ({self.episodes_per_round})"
            )

    @property
    def num_rounds(self) -> int:
        """Optimizer steps."""
        return -(-self.num_episodes // self.episodes_per_round)
