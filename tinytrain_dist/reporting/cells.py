"""The printed cells of a comparison row, shared by the terminal's table and the page's."""

from __future__ import annotations

from tinytrain_dist.reporting import formatting
from tinytrain_dist.reporting.comparison import ComparisonRow
from tinytrain_dist.reporting.quantiles import MIN_TASKS_P95
from tinytrain_dist.reporting.views import BASELINE

ACCURACY_COLUMNS = ("method", "tasks", "fits %", "accuracy %", "where fits % (n)", "gain, pts")
COST_COLUMNS = ("latency p50/p95", "energy p50/p95", "peak p50/p95", "standing")
LAST_COLUMNS = ("failed %",)

EXPLANATION = (
    "Accuracy: mean over tasks ± half of the 95 % t interval; rows that failed are counted, never averaged in. "
    "'where fits' leaves out tasks whose plan is infeasible or does not fit (their accuracy stays as before). "
    "'fits %' (+n?): another n % lie inside the memory counter's own error, neither counted as fitting nor as not. "
    "Gain: absolute percentage points over 'none', paired on the same tasks. "
    f"p95 is shown from {MIN_TASKS_P95} tasks on; costs cover tasks that have a plan."
)


def accuracy_cells(row: ComparisonRow, label: str) -> list[str]:
    """Return the cells under ``ACCURACY_COLUMNS``."""
    where = formatting.percent_interval(row.accuracy_where_fits_mean, row.accuracy_where_fits_high)
    return [
        label,
        str(row.num_tasks),
        _fits(row),
        formatting.percent_interval(row.accuracy_mean, row.accuracy_high),
        f"{where} ({row.num_tasks_where_fits})",
        "reference" if row.method == BASELINE else formatting.points(row.gain_points, row.gain_high_points),
    ]


def cost_cells(row: ComparisonRow) -> list[str]:
    """Return the cells under ``COST_COLUMNS``."""
    return [
        _pair(formatting.duration(row.latency_p50_ms), formatting.duration(row.latency_p95_ms), row.num_priced),
        _pair(formatting.energy(row.energy_p50_mj), formatting.energy(row.energy_p95_mj), row.num_energy_priced),
        _pair(formatting.memory(row.peak_p50_bytes), formatting.memory(row.peak_p95_bytes), row.num_priced),
        row.standing or formatting.UNKNOWN,
    ]


def last_cells(row: ComparisonRow) -> list[str]:
    """Return the cells under ``LAST_COLUMNS``."""
    return [formatting.percent(row.failed_share)]


def _fits(row: ComparisonRow) -> str:
    certain = formatting.percent(row.fits_share, digits=0)
    return certain + (f" (+{formatting.percent(row.uncertain_share, digits=0)}?)" if row.uncertain_share else "")


def _pair(median: str, high: str, num: int) -> str:
    if median == formatting.UNKNOWN:
        return median
    return f"{median} / " + (high if num >= MIN_TASKS_P95 else f"n<{MIN_TASKS_P95}")
