"""Accuracy on classes of the source domains that training never sees, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.data.domain import Domain
from tinytrain_dist.execution.worker_group import WorkerGroup
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import validation_slots

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class ValidationScore:
    """Mean query accuracy over episodes (a share), and half the width of its 95 % t-interval."""

    accuracy: float
    half_width: float
    num_episodes: int


def validate(
    settings: MetaTrainSettings, domains: Mapping[str, Domain], *, weights: FlatState, group: WorkerGroup
) -> dict[str, ValidationScore]:
    """Return the score of each source domain, on the same episodes every time."""
    slots = [slot for domain in domains.values() for slot in validation_slots(settings, domain)]
    values = group.run_round("evaluate", [weights], slots)
    count = settings.validation_episodes
    return {name: score(values[i * count : (i + 1) * count]) for i, name in enumerate(domains)}


def score(values: Sequence[float]) -> ValidationScore:
    """Return mean and 95 % interval of at least two accuracies."""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * error
    return ValidationScore(accuracy=mean, half_width=half, num_episodes=len(values))
