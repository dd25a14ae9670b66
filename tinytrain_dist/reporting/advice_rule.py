"""The rule of an advice: of what certainly fits, the cheapest among those about as accurate as the best.

1. Admissible is what finished every task drawn and certainly fits on all of them: device memory, and each limit given,
   with the upper end of its price.
2. The best is the admissible choice of the highest mean accuracy.
3. Equals are the admissible choices whose mean is at most a tolerance below the best, on the same tasks.
4. Advised is the equal of the smallest median energy per adaptation (unknown energy last); then of the smallest time,
   then of the device with the least memory, then the first by name.

What is admissible does not depend on what else is, and the order of step 4 is the same for every set. So with further
limits the answer is never at once as accurate and cheaper, or more accurate and as cheap; and the best is never better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.reporting.admissible import admissible
from tinytrain_dist.reporting.comparison import ComparisonRow, method_rank

TOLERANCE_POINTS = 1.0
"""So many points of accuracy are given away for less energy, unless another tolerance is asked for."""
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the rule chooses; ``equals`` are cheapest first, the first is ``advised``; none: nothing is admissible."""

    best: ComparisonRow | None
    equals: tuple[ComparisonRow, ...]

    @property
    def advised(self) -> ComparisonRow | None:
        """Return the choice."""
        return self.equals[0] if self.equals else None


def decide(rows: Sequence[ComparisonRow], *, tolerance_points: float = TOLERANCE_POINTS) -> Decision:
    """Return what the rule chooses among lines by device.

    Parameters
    ----------
    rows
        Lines of ``comparison_table`` by device, judged under the limits.
    tolerance_points
        Points below the best that still count as equal; 0: only the best.

    Raises
    ------
    ConfigError
        A tolerance below 0 or above 100.
    """
    check_tolerance(tolerance_points)
    found = admissible(rows)
    if not found:
        return Decision(best=None, equals=())
    best = min(found, key=lambda row: (-_accuracy(row), cost_order(row)))
    floor = _accuracy(best) - tolerance_points / 100 - _ROUNDING
    equals = sorted((row for row in found if _accuracy(row) >= floor), key=cost_order)
    return Decision(best=best, equals=tuple(equals))


def check_tolerance(tolerance_points: float) -> None:
    """Raise ``ConfigError`` unless the tolerance is one."""
    if not 0 <= tolerance_points <= 100:
        raise ConfigError(f"--tolerance: found {tolerance_points}; allowed: points of accuracy from 0 to 100")


def gain_to_win(rows: Sequence[ComparisonRow], row: ComparisonRow, *, tolerance_points: float) -> float | None:
    """Return how many points of accuracy make ``row`` the advised one, all else as it is.

    It must come within the tolerance of the best; where something cheaper is within it too, that must fall out, so it
    has to lead that by more than the tolerance. None: no accuracy up to 100 % does it, or the row is not admissible.
    """
    others = [other for other in admissible(rows) if other is not row]
    if row not in admissible(rows):
        return None
    tolerance, best = tolerance_points / 100, max((_accuracy(other) for other in others), default=0.0)
    cheaper = max((_accuracy(other) for other in others if cost_order(other) < cost_order(row)), default=-1.0)
    in_the_way = cheaper >= best - tolerance - _ROUNDING
    needed = cheaper + tolerance + 2 * _ROUNDING if in_the_way else best - tolerance
    return None if needed > 1 else max(0.0, 100 * (needed - _accuracy(row)))


def cost_order(row: ComparisonRow) -> tuple[Any, ...]:
    """Return the sort key of step 4."""
    costs = (row.energy_p50_mj, row.latency_p50_ms, row.device_ram_bytes)
    return (*((cost is None, cost or 0) for cost in costs), row.device, method_rank(row.method), row.variant)


def _accuracy(row: ComparisonRow) -> float:
    assert row.accuracy_mean is not None
    return row.accuracy_mean
