"""How long a unit takes: the cost model's prediction, corrected by what units really took."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median

from tinytrain_dist.simulation.request import Cells

Group = tuple[str, Cells]
"""Units that are taken to cost the same: a domain, and the cells of each of its tasks."""
MEMORY = 31
"""Chunks a correction is the median of: a straggler or a cold start moves it little."""


class Rates:
    """Predicted seconds per unit, corrected by the median ratio seen: of the group, else of all groups."""

    def __init__(self, predicted: Callable[[Group], float]) -> None:
        self._predicted = predicted
        self._known: dict[Group, float] = {}
        self._ratios: dict[Group, deque[float]] = {}
        self._all: deque[float] = deque(maxlen=MEMORY)
        self._corrections: dict[Group, float] = {}
        self._correction = 1.0

    def unit_seconds(self, group: Group) -> float:
        """Return the seconds one unit of the group is expected to take."""
        return self._base(group) * self._corrections.get(group, self._correction)

    def observe(self, group: Group, *, seconds: float, num_tasks: int) -> None:
        """Learn from a chunk that took ``seconds``."""
        ratio = max(seconds, 1e-6) / num_tasks / self._base(group)
        own = self._ratios.setdefault(group, deque(maxlen=MEMORY))
        own.append(ratio)
        self._all.append(ratio)
        self._corrections[group] = median(own)
        self._correction = median(self._all)

    def _base(self, group: Group) -> float:
        if group not in self._known:
            self._known[group] = max(self._predicted(group), 1e-9)
        return self._known[group]
