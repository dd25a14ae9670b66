"""Means with a 95 % t interval, and quantiles only where there are enough values for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95
MIN_TASKS_P95 = 59
"""Smallest n with 0.95^n < 0.05: with fewer tasks no observed value bounds the 95th percentile."""


@dataclass(frozen=True)
class Estimate:
    """A mean over ``num`` tasks; ``low`` and ``high`` are None for a single task."""

    mean: float
    low: float | None
    high: float | None
    num: int


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
    half = float(stdtrit(num - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(num)
    return Estimate(mean, mean - half, mean + half, num)


def p95(value: float | None, num: int) -> float | None:
    """Return the 95th percentile, or None where fewer than ``MIN_TASKS_P95`` tasks stand behind it."""
    return value if num >= MIN_TASKS_P95 else None
