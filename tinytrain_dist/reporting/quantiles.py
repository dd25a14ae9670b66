"""Quantiles only where enough tasks stand behind them: one of n values must be able to bound the quantile."""

from __future__ import annotations

import math

_RISK = 0.05


def tasks_needed(share: float) -> int:
    """Return the smallest n with ``share**n < 0.05``: 59 for p95, 299 for p99.

    With fewer tasks the largest observed value lies below the quantile with more than 5 % probability.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: found {share!r}; allowed: above 0, below 1")
    num = math.ceil(math.log(_RISK) / math.log(share))
    return num if share**num < _RISK else num + 1


MIN_TASKS_P95 = tasks_needed(0.95)
MIN_TASKS_P99 = tasks_needed(0.99)


def quantile_or_none(value: float | None, share: float, num: int) -> float | None:
    """Return ``value``, the ``share`` quantile of ``num`` tasks, or None where they are too few."""
    return value if num >= tasks_needed(share) else None
