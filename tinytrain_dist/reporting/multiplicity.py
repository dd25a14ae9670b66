"""Correction when many methods are compared at once."""

from __future__ import annotations

from collections.abc import Sequence

ALPHA = 0.05
"""Differences with a corrected p below it are called distinguishable."""


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p values adjusted by Holm's step-down rule (Scandinavian Journal of Statistics, 1979).

    Rejecting those below 0.05 keeps the chance of a single false rejection in the family at 5 %, whatever the tests'
    dependence. None (no test) stays None and does not count.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted
