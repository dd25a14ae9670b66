"""Accuracy on classes that training never sees, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.data.domain import Domain, open_domain
from tinytrain_dist.data.episodes import check_episodes
from tinytrain_dist.execution.worker_group import WorkerGroup
from tinytrain_dist.metatraining.slots import Slot, validation_slots
from tinytrain_dist.metatraining.training_settings import TrainingSettings

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class ValidationScore:
    """Mean query accuracy over episodes (a share), and half the width of its 95 % t-interval."""

    accuracy: float
    half_width: float
    num_episodes: int


class Validation:
    """The episodes a training is validated on, the same ones every time.

    ``valid`` classes of the source domains, all classes of ``validation_domains``. Raises ``DataError`` if a domain
    cannot satisfy the settings.
    """

    def __init__(self, settings: TrainingSettings, source: Mapping[str, Domain], roots: Sequence[str]) -> None:
        self.slots: dict[str, tuple[Slot, ...]] = {}
        self.contents: dict[str, str] = {}
        for name, domain in source.items():
            check_episodes(domain, split="valid", settings=settings.validation)
            self.slots[name] = validation_slots(settings, domain, split="valid")
        for name in settings.validation_domains:
            domain = open_domain(name, roots=roots)
            check_episodes(domain, split="all", settings=settings.validation)
            self.slots[name] = validation_slots(settings, domain, split="all")
            self.contents[name] = domain.content_hash

    def scores(self, weights: FlatState, group: WorkerGroup) -> dict[str, ValidationScore]:
        """Return the score of each domain."""
        values = iter(group.run_round("evaluate", [weights], [slot for own in self.slots.values() for slot in own]))
        return {name: score([next(values) for _ in own]) for name, own in self.slots.items()}


def score(values: Sequence[float]) -> ValidationScore:
    """Return mean and 95 % interval of at least two accuracies."""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * error
    return ValidationScore(accuracy=mean, half_width=half, num_episodes=len(values))


def mean_accuracy(scores: Mapping[str, ValidationScore]) -> float:
    """Return the mean over domains."""
    return sum(value.accuracy for value in scores.values()) / len(scores)
