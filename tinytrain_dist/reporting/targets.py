"""The smallest device that meets given targets, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinytrain_dist.reporting import cells
from tinytrain_dist.reporting.comparison import ComparisonRow
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What meets the targets on one device, or what is missing there.

    ``verdict``: ``sure`` (it certainly fits on every task and the lower end of the accuracy's 95 % interval reaches
    the target), ``likely`` (it fits unless a counter or price errs, and the mean reaches the target), or ``no``.
    """

    device: str
    ram_bytes: int | None
    verdict: str
    label: str | None
    accuracy_mean: float | None
    accuracy_low: float | None
    why: str


def smallest_devices(rows: Sequence[ComparisonRow], *, min_accuracy: float | None) -> list[Answer]:
    """Return one answer per device, smallest first (by RAM); the first that is not ``no`` is the smallest that will do.

    Parameters
    ----------
    rows
        Lines by device, judged under the limits of the targets (``comparison_table(..., limits=...)``).
    min_accuracy
        Mean accuracy to reach (share); None: any.
    """
    labels = adaptation_labels(rows)
    devices = sorted({str(row.device) for row in rows if row.device is not None})
    found = [_answer([row for row in rows if row.device == device], labels, min_accuracy) for device in devices]
    return sorted(found, key=lambda answer: (answer.ram_bytes is None, answer.ram_bytes or 0, answer.device))


def _answer(rows: list[ComparisonRow], labels: dict[Any, str], target: float | None) -> Answer:
    ranked = sorted(
        rows, key=lambda row: (_rank(row, target), -(row.accuracy_mean or 0.0), labels[adaptation_key(row)])
    )
    best = ranked[0]
    rank = _rank(best, target)
    ram = max((row.ram_bytes for row in rows if row.ram_bytes is not None), default=None)
    why = {0: "fits every task; the whole interval reaches the target", 1: _doubt(best, target)}
    return Answer(
        device=str(best.device),
        ram_bytes=ram,
        verdict={0: "sure", 1: "likely"}.get(rank, "no"),
        label=None if rank > 1 else labels[adaptation_key(best)],
        accuracy_mean=None if rank > 1 else best.accuracy_mean,
        accuracy_low=None if rank > 1 else best.accuracy_low,
        why=why[rank] if rank <= 1 else _missing(rows, labels, target),
    )


def _rank(row: ComparisonRow, target: float | None) -> int:
    """Return 0 sure, 1 likely, 2 fits but is too inaccurate, 3 does not fit."""
    if row.accuracy_mean is None or (row.fits_share or 0.0) + (row.uncertain_share or 0.0) < 1.0 - 1e-12:
        return 3
    if target is not None and row.accuracy_mean < target:
        return 2
    certain = row.accuracy_low is not None and row.accuracy_low >= target if target is not None else True
    return 0 if certain and row.fits_share == 1.0 else 1


def _doubt(row: ComparisonRow, target: float | None) -> str:
    doubts = []
    if row.fits_share != 1.0:
        doubts.append(
            f"the fit of {100 * (row.uncertain_share or 0.0):.0f} % of the tasks is uncertain ({row.limiting})"
        )
    if target is not None and (row.accuracy_low is None or row.accuracy_low < target):
        low = "unknown" if row.accuracy_low is None else f"{100 * row.accuracy_low:.1f} %"
        doubts.append(f"the accuracy's lower end ({low}) is below the target")
    return "; ".join(doubts)


def _missing(rows: list[ComparisonRow], labels: dict[Any, str], target: float | None) -> str:
    fitting = [row for row in rows if _rank(row, target) == 2]
    if fitting:
        best = max(fitting, key=lambda row: row.accuracy_mean or 0.0)
        short = 100 * ((target or 0.0) - (best.accuracy_mean or 0.0))
        return f"the best that fits, {labels[adaptation_key(best)]}, misses {short:.1f} points"
    known = [row for row in rows if row.accuracy_mean is not None and row.limiting]
    if not known:
        return "every row failed"
    near = max(known, key=lambda row: (row.fits_share or 0.0, row.accuracy_mean or 0.0))
    return f"nothing fits every task; nearest: {labels[adaptation_key(near)]} ({near.limiting}{cells.margin(near)})"
