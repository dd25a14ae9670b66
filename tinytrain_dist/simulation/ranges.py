"""Index ranges: how a set of task indices is written down in a few numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ranges = tuple[tuple[int, int], ...]
"""Half-open ``(start, stop)`` pairs, ascending, disjoint and not touching."""


def ranges_of(indices: NDArray[np.int64]) -> Ranges:
    """Return the ranges that hold exactly the ascending ``indices``."""
    if not len(indices):
        return ()
    breaks = np.flatnonzero(np.diff(indices) != 1)
    starts = np.concatenate(([0], breaks + 1))
    stops = np.concatenate((breaks, [len(indices) - 1]))
    return tuple((int(indices[a]), int(indices[b]) + 1) for a, b in zip(starts, stops, strict=True))


def num_in(ranges: Ranges) -> int:
    """Return how many indices the ranges hold."""
    return sum(stop - start for start, stop in ranges)


def indices_of(ranges: Ranges) -> Iterator[int]:
    """Yield the indices in ascending order."""
    for start, stop in ranges:
        yield from range(start, stop)


def split(ranges: Ranges, count: int) -> tuple[Ranges, Ranges]:
    """Return the first ``count`` indices and the rest."""
    first: list[tuple[int, int]] = []
    rest: list[tuple[int, int]] = []
    for start, stop in ranges:
        middle = min(stop, start + max(count, 0))
        count -= stop - start
        first += [(start, middle)] if middle > start else []
        rest += [(middle, stop)] if stop > middle else []
    return tuple(first), tuple(rest)


def joined(*parts: Ranges) -> Ranges:
    """Return the ranges of disjoint parts as one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(pair for part in parts for pair in part):
        if merged and merged[-1][1] == start:
            merged[-1] = merged[-1][0], stop
        else:
            merged.append((start, stop))
    return tuple(merged)
