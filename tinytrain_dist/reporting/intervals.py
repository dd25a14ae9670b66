"""Intervals of means over tasks: Student's t or bootstrap, pooled over all tasks or averaged over domains.

The task is the unit: every value is one task's. ``pooled`` treats all tasks alike; ``domain mean`` is the mean of the
domains' means, as papers on Meta-Dataset average, its variance the mean of the domains' own (each over the number of
domains squared). A difference of two adaptations is paired first (task by task) and then treated as one sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from tinytrain_dist.foundation.seeding import generator_of

IntervalKind = Literal["t", "bootstrap"]
INTERVAL_KINDS: tuple[IntervalKind, ...] = ("t", "bootstrap")
CONFIDENCE = 0.95
NUM_RESAMPLES = 4000
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over ``num`` tasks; ``low`` and ``high`` are None where too few tasks stand behind it."""

    mean: float
    low: float | None
    high: float | None
    num: int


@dataclass(frozen=True)
class Moments:
    """Number, mean and sample standard deviation (n - 1) of one value per task; None where there is none."""

    num: int
    mean: float | None
    deviation: float | None


def t_interval(mean: float | None, deviation: float | None, num: int) -> Estimate | None:
    """Return the mean with its two-sided 95 % Student t interval.

    Parameters
    ----------
    mean, deviation
        Mean and sample standard deviation (n - 1) over tasks; None where there is no task.
    num
        Number of tasks.
    """
    if mean is None or num == 0:
        return None
    if num == 1 or deviation is None:
        return Estimate(mean, None, None, num)
    return _around(mean, variance=deviation**2 / num, freedom=num - 1, num=num)


def domain_mean(domains: Sequence[Moments]) -> Estimate | None:
    """Return the mean of the domains' means with its 95 % t interval (degrees of freedom: Welch and Satterthwaite).

    A domain of a single task has no variance of its own: then there is a mean but no interval.
    """
    used = [domain for domain in domains if domain.num and domain.mean is not None]
    if not used:
        return None
    num = sum(domain.num for domain in used)
    mean = math.fsum(domain.mean or 0.0 for domain in used) / len(used)
    if any(domain.num < 2 or domain.deviation is None for domain in used):
        return Estimate(mean, None, None, num)
    parts = [((domain.deviation or 0.0) / len(used)) ** 2 / domain.num for domain in used]
    variance = math.fsum(parts)
    below = math.fsum(part**2 / (domain.num - 1) for part, domain in zip(parts, used, strict=True))
    freedom = variance**2 / below if below else math.inf
    return _around(mean, variance=variance, freedom=freedom, num=num)


def _around(mean: float, *, variance: float, freedom: float, num: int) -> Estimate:
    half = float(stdtrit(min(freedom, 1e9), (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half, num)


def bootstrap_interval(domains: Sequence[Sequence[float]], *, seed: str = "") -> Estimate | None:
    """Return the mean of the means of ``domains`` with its 95 % percentile bootstrap interval.

    Tasks are drawn with replacement within each domain, ``NUM_RESAMPLES`` times; one domain holding every task gives
    the pooled interval. How often each distinct value is drawn is multinomial, so the order of the tasks plays no part.
    """
    strata = [np.sort(np.asarray(values, np.float64)) for values in domains if len(values)]
    if not strata:
        return None
    strata.sort(key=lambda values: (len(values), values.tolist()))
    num = sum(map(len, strata))
    mean = math.fsum(math.fsum(values) / len(values) for values in strata) / len(strata)
    if any(len(values) < 2 for values in strata):
        return Estimate(mean, None, None, num)
    draws = np.mean([_resampled_means(v, seed, place) for place, v in enumerate(strata)], axis=0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(mean, float(low), float(high), num)


def _resampled_means(values: Values, seed: str, place: int) -> Values:
    distinct, counts = np.unique(values, return_counts=True)
    random = generator_of("bootstrap", seed, place, len(values))
    num_chunks = max(1, -(-NUM_RESAMPLES * len(distinct) // 8_000_000))
    sizes = [len(part) for part in np.array_split(np.arange(NUM_RESAMPLES), num_chunks)]
    drawn = [random.multinomial(len(values), counts / len(values), size=size) @ distinct for size in sizes]
    means: Values = np.concatenate(drawn) / len(values)
    return means


def t_test(mean: float | None, deviation: float | None, num: int) -> float | None:
    """Return the two-sided p value of a paired t test: ``mean`` of the differences against zero."""
    if mean is None or deviation is None or num < 2:
        return None
    if deviation == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2 * stdtr(num - 1, -abs(mean) / (deviation / math.sqrt(num))))
