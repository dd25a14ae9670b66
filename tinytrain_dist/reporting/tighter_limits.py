"""Limits under which another line would be chosen: it fits on every task, what is chosen now does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tinytrain_dist.reporting.comparison import ComparisonRow

Choose = Callable[[Sequence[ComparisonRow]], ComparisonRow | None]
"""What is chosen among the lines that are left."""
DIGITS = 3
# A limit of RAM is not among them: it also decides what a method with a budget chooses, which stored rows cannot tell.
_RESOURCES = (("time", "--max-seconds", "s", "latency_worst_ms"), ("energy", "--max-joules", "J", "energy_worst_mj"))


@dataclass(frozen=True, kw_only=True)
class LimitRange:
    """Every limit from ``low`` to ``high`` (s or J, as printed) of ``option`` gives the other choice."""

    resource: str
    option: str
    unit: str
    low: float
    high: float


def tighter_limits(
    rows: Sequence[ComparisonRow], chosen: ComparisonRow, other: ComparisonRow, choose: Choose
) -> list[LimitRange]:
    """Return the ranges of limits under which ``choose`` takes ``other`` in place of ``chosen``.

    A line fits under a limit where the upper end of its price does on every task. The choice is made again at both
    ends and wherever another line begins to fit in between.
    """
    found = []
    for resource, option, unit, field in _RESOURCES:
        ours, theirs = getattr(chosen, field), getattr(other, field)
        if ours is None or theirs is None:
            continue
        low, high = _rounded(theirs / 1e3, math.ceil), _below(ours / 1e3)
        between = [worst for row in rows if (worst := getattr(row, field)) is not None and low < worst / 1e3 < high]
        limits = [1e3 * low, *between, 1e3 * high]
        if low <= high and all(choose(_limited(rows, field, limit)) is other for limit in limits):
            found.append(LimitRange(resource=resource, option=option, unit=unit, low=low, high=high))
    return found


def limit_words(found: LimitRange) -> str:
    """Return the range as text, its ends as they were tried."""
    return f"between {found.low:g} and {found.high:g} {found.unit}"


def _limited(rows: Sequence[ComparisonRow], field: str, limit: float) -> list[ComparisonRow]:
    """Return the lines as they would be judged under the limit; those that still fit are the same objects."""
    worst = [getattr(row, field) for row in rows]
    return [
        row if price is not None and price <= limit else replace(row, fits_share=0.0)
        for row, price in zip(rows, worst, strict=True)
    ]


def _below(value: float) -> float:
    """Return the largest number of few digits below ``value``."""
    down = _rounded(value, math.floor)
    return down if down < value else _rounded(value * (1 - 10.0**-DIGITS), math.floor)


def _rounded(value: float, how: Callable[[float], int]) -> float:
    if value <= 0:
        return value
    digits = DIGITS - 1 - math.floor(math.log10(value))
    return round(how(round(value * 10.0**digits, 6)) / 10.0**digits, max(0, digits))
