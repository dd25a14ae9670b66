"""What a reader must know before trusting the figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from tinytrain_dist.reporting.cells import INAPPLICABLE
from tinytrain_dist.reporting.comparison import ComparisonRow, joined
from tinytrain_dist.reporting.views import BASELINE


class Priced(Protocol):
    """A figure with an accuracy and a price: a line of the planner's table, or a choice of an advice."""

    @property
    def device(self) -> str | None:
        """Where it is priced."""

    @property
    def numerics_differ(self) -> bool:
        """Whether the accuracy is of another arithmetic than the price."""

    @property
    def accuracy_numerics(self) -> str:
        """Arithmetic of the accuracy."""

    @property
    def price_numerics(self) -> str:
        """Arithmetic of the price."""

    @property
    def extrapolated(self) -> str:
        """Totals outside what was measured."""

    @property
    def extrapolated_share(self) -> float | None:
        """Part of the tasks that holds for."""


def numerics_notice(rows: Sequence[Priced]) -> str | None:
    """Return a notice naming the devices that are priced in another arithmetic than the accuracy's."""
    apart = [row for row in rows if row.numerics_differ]
    if not apart:
        return None
    devices = ", ".join(sorted({row.device for row in apart if row.device})) or "some of the devices"
    accuracy, price = joined(apart, "accuracy_numerics"), joined(apart, "price_numerics")
    return (
        f"NOTE: accuracy is computed in {accuracy}, time, energy and memory are priced in {price} on {devices}: "
        f"accuracy there may differ."
    )


def extrapolation_notice(rows: Sequence[Priced]) -> str | None:
    """Return a notice naming the devices that are priced outside what was measured on them."""
    outside = [row for row in rows if row.extrapolated]
    if not outside:
        return None
    devices = ", ".join(sorted({row.device for row in outside if row.device})) or "some of the devices"
    totals = ", ".join(sorted({name for row in outside for name in row.extrapolated.split(", ")}))
    shares = sorted(100 * (row.extrapolated_share or 0.0) for row in outside)
    share = f"{shares[-1]:.0f} %" if shares[0] == shares[-1] else f"{shares[0]:.0f} to {shares[-1]:.0f} %"
    return (
        f"NOTE: 'extrapolated': on {devices}, {totals} of {share} of the tasks lie outside what was measured there; "
        f"the intervals of time and energy are widened with the distance."
    )


def inapplicable_notices(rows: Iterable[tuple[str, str | None, int]]) -> list[str]:
    """Return, for (method, reason, rows of it), a notice per method with nothing to update, and why."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for method, reason, num in rows:
        if reason is not None:
            counts[method, reason] += num
    return [
        f"NOTE: {method} is {INAPPLICABLE}: {reason}; its {num} row{'s are' if num > 1 else ' is'} in no mean."
        for (method, reason), num in sorted(counts.items())
    ]


def notices(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return every notice that applies to these rows."""
    found: list[str | None] = [numerics_notice(rows), extrapolation_notice(rows)]
    if any("estimate" in row.standing for row in rows):
        found.append(
            "NOTE: 'estimate' means no measurement of training on the device stands behind its time and energy."
        )
    if not any(row.method == BASELINE for row in rows):
        found.append("NOTE: the run has no rows of 'none', so no gain can be stated.")
    found += inapplicable_notices((row.method, row.inapplicable, row.num_inapplicable) for row in rows)
    failed = sum(row.num_failed for row in rows)
    if failed:
        found.append(
            f"NOTE: {failed} of {sum(row.num_rows for row in rows)} rows failed and are left out of all means."
        )
    return [text for text in found if text]
