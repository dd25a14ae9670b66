"""Which lines certainly fit every task: the share of fitting tasks alone says nothing of those that failed."""

from __future__ import annotations

from collections.abc import Sequence

from tinytrain_dist.reporting import cells
from tinytrain_dist.reporting.comparison import ComparisonRow


def admissible(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """Return the lines on a device that finished every task any of ``rows`` did and certainly fit on each.

    Parameters
    ----------
    rows
        Lines by device (of one domain, where they are by domain too).
    """
    most = most_tasks(rows)
    return [row for row in rows if row.device is not None and not _reason(row, most)]


def most_tasks(rows: Sequence[ComparisonRow]) -> int:
    """Return the number of tasks of the lines on a device that stand on most."""
    return max((row.num_tasks for row in rows if row.device is not None), default=0)


def finished(row: ComparisonRow, most: int) -> bool:
    """Return whether no row of the line failed and none of ``most`` tasks is missing."""
    return row.num_failed == 0 and row.num_tasks == most and row.accuracy_mean is not None


def why_not(row: ComparisonRow, rows: Sequence[ComparisonRow]) -> str:
    """Return why a line of ``rows`` is not admissible, such as ``ram -384 KiB``; empty where it is."""
    return _reason(row, most_tasks(rows))


def _reason(row: ComparisonRow, most: int) -> str:
    if row.is_inapplicable:
        return cells.INAPPLICABLE
    if row.num_failed:
        return f"{row.num_failed} of {row.num_rows} rows failed"
    if not finished(row, most):
        return f"{row.num_tasks} of {most} tasks finished"
    return "" if row.fits_share == 1.0 else f"{row.limiting}{cells.margin(row)}"
