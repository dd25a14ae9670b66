"""Accuracy against a cost: which choices nobody beats in both, which one is the knee, and what beats the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.reporting.admissible import admissible
from tinytrain_dist.reporting.comparison import ComparisonRow
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels

Cost = Literal["energy", "latency", "memory"]
COSTS: dict[str, str] = {"energy": "energy_p50_mj", "latency": "latency_p50_ms", "memory": "peak_p50_bytes"}
"""Name of a cost -> the field of a line that holds its median per task."""
ENDS: dict[str, tuple[str, ...]] = {
    "energy": ("energy_low_mj", "energy_high_mj"), "latency": ("latency_low_ms", "latency_high_ms"), "memory": (),
}  # fmt: skip
"""Name of a cost -> the fields with the ends of the price model's interval."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One adaptation on one device, judged by one cost.

    ``on_front``: no other choice is at least as good in both and better in one. ``dominated_by`` names one that is.
    ``knee``: the choice of the front farthest from the line between its ends, cost on a log scale, both axes scaled
    to the front's span (Kneedle's chord; fronts of one or two choices have none), and every choice equal to it in both.
    """

    cost: str
    device: str
    label: str
    accuracy_mean: float
    accuracy_low: float | None
    accuracy_high: float | None
    value: float
    value_low: float | None
    value_high: float | None
    standing: str
    on_front: bool
    knee: bool
    dominated_by: str | None
    numerics_differ: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, the cost under its own name and unit."""
        own = {"value": COSTS[self.cost], **dict(zip(("value_low", "value_high"), ENDS[self.cost], strict=False))}
        fields = {own.get(name, name): value for name, value in self.__dict__.items()}
        return {name: value for name, value in fields.items() if name not in ("value_low", "value_high")}


def check_costs(names: Iterable[str]) -> list[str]:
    """Return the costs named; ``all`` is every one; raises ``ConfigError`` for an unknown one."""
    found: list[str] = []
    for name in names:
        if name != "all" and name not in COSTS:
            raise ConfigError(f"--pareto: unknown cost {name!r}; {nearest(name, [*COSTS, 'all'])}")
        found += list(COSTS) if name == "all" else [name]
    return list(dict.fromkeys(found))


def choices(rows: Sequence[ComparisonRow], cost: str, *, device: str | None = None) -> list[Choice]:
    """Return the choices that finished and certainly fit every task, cheapest first, over all devices or on one.

    Parameters
    ----------
    rows
        Lines of ``comparison_table`` by device.
    """
    labels = adaptation_labels(rows)
    fitting = [
        row for row in admissible(rows) if device in (None, row.device) and getattr(row, COSTS[cost]) is not None
    ]
    points = [(float(getattr(row, COSTS[cost])), row.accuracy_mean or 0.0) for row in fitting]
    front, beaten = non_dominated(points)
    best = knee([points[place] for place in front])
    knee_point = None if best is None else points[front[best]]
    names = [labels[adaptation_key(row)] + ("" if device else f" on {row.device}") for row in fitting]
    found = [
        Choice(
            cost=cost, device=str(row.device), label=labels[adaptation_key(row)], accuracy_mean=points[place][1],
            accuracy_low=row.accuracy_low, accuracy_high=row.accuracy_high, standing=row.standing,
            **_ends(row, cost), value=points[place][0], on_front=place not in beaten, knee=points[place] == knee_point,
            dominated_by=names[beaten[place]] if place in beaten else None, numerics_differ=row.numerics_differ,
        )
        for place, row in enumerate(fitting)
    ]  # fmt: skip
    return sorted(found, key=lambda choice: (choice.value, -choice.accuracy_mean, choice.device, choice.label))


def _ends(row: ComparisonRow, cost: str) -> dict[str, Any]:
    ends = [getattr(row, name) for name in ENDS[cost]] or [None, None]
    return dict(zip(("value_low", "value_high"), ends, strict=True))


def non_dominated(points: Sequence[tuple[float, float]]) -> tuple[list[int], dict[int, int]]:
    """Return the places of the points nobody dominates, cheapest first, and of every other one a dominating point.

    Parameters
    ----------
    points
        (cost, gain): a point dominates another when it costs no more and gains no less, and differs in one of them.
        Equal points do not dominate each other.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1], place))
    front: list[int] = []
    beaten: dict[int, int] = {}
    for place in order:
        last = front[-1] if front else None
        if last is None or points[place][1] > points[last][1] or points[place] == points[last]:
            front.append(place)
        else:
            beaten[place] = last
    return front, beaten


def knee(front: Sequence[tuple[float, float]]) -> int | None:
    """Return the place of the knee among points of a front sorted by cost, or None where there is none."""
    distinct = list(dict.fromkeys(front))
    if len(distinct) < 3:
        return None
    costs = [math.log(max(cost, 1e-12)) for cost, _ in distinct]
    gains = [gain for _, gain in distinct]
    across, up = costs[-1] - costs[0], gains[-1] - gains[0]
    if across <= 0 or up <= 0:
        return None
    heights = [(gain - gains[0]) / up - (cost - costs[0]) / across for cost, gain in zip(costs, gains, strict=True)]
    best = max(range(len(distinct)), key=lambda place: (heights[place], -place))
    return front.index(distinct[best]) if 0 < best < len(distinct) - 1 and heights[best] > 0 else None
