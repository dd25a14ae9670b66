"""The smallest device that meets given targets, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinytrain_dist.reporting import cells
from tinytrain_dist.reporting.admissible import finished, most_tasks
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
    min_accuracy: float | None
    why: str


def smallest_devices(rows: Sequence[ComparisonRow], *, min_accuracy: float | None) -> list[Answer]:
    """Return one answer per device, smallest first (by its own RAM, whatever the limit); the first that is not ``no``
    is the smallest that will do.

    Parameters
    ----------
    rows
        Lines by device, judged under the limits of the targets (``comparison_table(..., limits=...)``).
    min_accuracy
        Mean accuracy to reach (share); None: any.
    """
    labels, most = adaptation_labels(rows), most_tasks(rows)
    devices = sorted({str(row.device) for row in rows if row.device is not None})
    found = [_answer([row for row in rows if row.device == device], labels, min_accuracy, most) for device in devices]
    return sorted(found, key=lambda answer: (answer.ram_bytes is None, answer.ram_bytes or 0, answer.device))


def _answer(rows: list[ComparisonRow], labels: dict[Any, str], target: float | None, most: int) -> Answer:
    ranked = sorted(
        rows, key=lambda row: (_rank(row, target, most), -(row.accuracy_mean or 0.0), labels[adaptation_key(row)])
    )
    best = ranked[0]
    rank = _rank(best, target, most)
    ram = max((row.device_ram_bytes for row in rows if row.device_ram_bytes is not None), default=None)
    reached = "" if target is None else "; the whole interval reaches the target"
    why = {0: f"fits every task{reached}", 1: _doubt(best, target)}
    return Answer(
        device=str(best.device),
        ram_bytes=ram,
        verdict={0: "sure", 1: "likely"}.get(rank, "no"),
        label=None if rank > 1 else labels[adaptation_key(best)],
        accuracy_mean=None if rank > 1 else best.accuracy_mean,
        accuracy_low=None if rank > 1 else best.accuracy_low,
        min_accuracy=target,
        why=why[rank] if rank <= 1 else _missing(rows, labels, target, most),
    )


def _rank(row: ComparisonRow, target: float | None, most: int) -> int:
    """Return 0 sure, 1 likely, 2 fits but is too inaccurate, 3 does not fit or finish on ``most`` tasks."""
    if row.accuracy_mean is None or (row.fits_share or 0.0) + (row.uncertain_share or 0.0) < 1.0 - 1e-12:
        return 3
    if not finished(row, most):
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


def _missing(rows: list[ComparisonRow], labels: dict[Any, str], target: float | None, most: int) -> str:
    fitting = [row for row in rows if _rank(row, target, most) == 2]
    if fitting:
        best = max(fitting, key=lambda row: row.accuracy_mean or 0.0)
        short = 100 * ((target or 0.0) - (best.accuracy_mean or 0.0))
        return f"the best that fits, {labels[adaptation_key(best)]}, misses {short:.1f} points"
    known = [row for row in rows if row.accuracy_mean is not None]
    if not known:
        return "every row failed" if any(row.num_failed for row in rows) else "no method is applicable"
    near = max(known, key=lambda row: (_nearness(row, most), row.accuracy_mean or 0.0))
    return f"nothing fits every task; nearest: {labels[adaptation_key(near)]} ({_lack(near, most)})"


def _nearness(row: ComparisonRow, most: int) -> tuple[bool, bool, float]:
    """Return what grows as less is missing: finished, has plans, and the smallest margin as a share of a common size.

    On one device the lines' RAM is one size; it measures flash too, which a line does not hold.
    """
    sizes = {"ram": row.ram_bytes, "flash": row.ram_bytes, "time": row.latency_p50_ms, "energy": row.energy_p50_mj}
    margins = {
        "ram": row.ram_margin_bytes, "flash": row.flash_margin_bytes, "time": row.time_margin_ms,
        "energy": row.energy_margin_mj,
    }  # fmt: skip
    size, margin = sizes.get(row.limiting or ""), margins.get(row.limiting or "")
    short = float("-inf") if not size or margin is None else margin / size
    return finished(row, most), row.limiting != "infeasible", short


def _lack(row: ComparisonRow, most: int) -> str:
    if row.num_failed or not finished(row, most):
        return f"{row.num_tasks} of {most} tasks finished"
    return f"{row.limiting}{cells.margin(row)}"
