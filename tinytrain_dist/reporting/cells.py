"""The printed cells of a comparison row, shared by the terminal's table and the page's."""

from __future__ import annotations

from tinytrain_dist.reporting import formatting
from tinytrain_dist.reporting.comparison import ComparisonRow
from tinytrain_dist.reporting.quantiles import MIN_TASKS_P95, MIN_TASKS_P99
from tinytrain_dist.reporting.views import BASELINE

ACCURACY_COLUMNS = ("method", "tasks", "fits %", "accuracy %", "where fits % (n)", "gain, pts")
COST_COLUMNS = ("latency p50/p95/p99", "energy p50/p95/p99", "peak p50/p95/p99", "standing")
BASIS_COLUMNS = ("accuracy in / priced in", "batch")
LAST_COLUMNS = ("failed %",)
DOMAIN_COLUMNS = ("p (Holm)", "mean of domains %", "its gain, pts")
INAPPLICABLE = "not applicable"
FIT_COLUMNS = ("RAM/flash/time/energy %", "decided by", "selection %")

EXPLANATION = (
    "Accuracy: mean over tasks ± half of the 95 % interval; rows that failed are counted, never averaged in. "
    "'where fits' leaves out tasks whose plan is infeasible or does not fit (their accuracy stays as before). "
    "'fits %' is of the rows that finished; (n failed): whether those would fit is not known. "
    f"{INAPPLICABLE}: the method has nothing to update on this network; such rows are in no mean. "
    "(+n?): another n % lie inside the memory counter's own error, neither counted as fitting nor as not. "
    "Gain: absolute percentage points over 'none', paired on the same tasks. "
    f"p95 is shown from {MIN_TASKS_P95} tasks on, p99 from {MIN_TASKS_P99} (n too small otherwise); "
    "costs cover tasks that have a plan."
)
_INTERVALS = {
    "t": "Intervals: Student's t over tasks (of the paired differences for gains)",
    "bootstrap": "Intervals: percentile bootstrap over tasks (of the paired differences for gains), 4,000 resamples",
}


def statistics_note(rows: list[ComparisonRow]) -> str:
    """Return which intervals, which correction and which average stand in the table."""
    kind = _INTERVALS[rows[0].interval] if rows else _INTERVALS["t"]
    return (
        f"{kind}. Mean of domains: every domain counts alike, as papers average; its variance is combined from the "
        "domains' own. p: paired t test of the gain over tasks, corrected by Holm over the lines of one table. "
        "RAM/flash/time/energy %: tasks with a plan that fit under each (- : no limit given); 'decided by' names the "
        "resource that decides and its smallest margin over tasks. Standing xF: time and energy are known within a "
        "factor F (the price model's 90 % interval)."
    )


def accuracy_cells(row: ComparisonRow, label: str) -> list[str]:
    """Return the cells under ``ACCURACY_COLUMNS``."""
    where = formatting.percent_interval(
        row.accuracy_where_fits_mean, row.accuracy_where_fits_high, row.accuracy_where_fits_low
    )
    return [
        label,
        str(row.num_tasks),
        fits_cell(row),
        formatting.percent_interval(row.accuracy_mean, row.accuracy_high, row.accuracy_low),
        f"{where} ({row.num_tasks_where_fits})",
        _gain(row, row.gain_points, row.gain_low_points, row.gain_high_points),
    ]


def domain_cells(row: ComparisonRow) -> list[str]:
    """Return the cells under ``DOMAIN_COLUMNS``."""
    return [
        formatting.probability(row.gain_p_holm),
        formatting.percent_interval(row.accuracy_domain_mean, row.accuracy_domain_high, row.accuracy_domain_low),
        _gain(row, row.gain_domain_points, row.gain_domain_low_points, row.gain_domain_high_points),
    ]


def fit_cells(row: ComparisonRow) -> list[str]:
    """Return the cells under ``FIT_COLUMNS``."""
    shares = (row.fits_ram_share, row.fits_flash_share, row.fits_time_share, row.fits_energy_share)
    return [
        "/".join(formatting.percent(share, digits=0) for share in shares),
        formatting.UNKNOWN if row.is_inapplicable else f"{row.limiting or 'RAM, all fit'}{margin(row)}",
        formatting.percent(row.selection_share),
    ]


def cost_cells(row: ComparisonRow) -> list[str]:
    """Return the cells under ``COST_COLUMNS``."""
    latency = [formatting.duration(v) for v in (row.latency_p50_ms, row.latency_p95_ms, row.latency_p99_ms)]
    energy = [formatting.energy(v) for v in (row.energy_p50_mj, row.energy_p95_mj, row.energy_p99_mj)]
    peak = [formatting.memory(v) for v in (row.peak_p50_bytes, row.peak_p95_bytes, row.peak_p99_bytes)]
    error = f" x{row.latency_error_factor:.2g}" if row.latency_error_factor else ""
    return [
        _quantiles(latency, row.num_priced),
        _quantiles(energy, row.num_energy_priced),
        _quantiles(peak, row.num_priced),
        (row.standing or formatting.UNKNOWN) + error,
    ]


def basis_cells(row: ComparisonRow) -> list[str]:
    """Return the cells under ``BASIS_COLUMNS``."""
    prices = row.price_numerics if row.backbone is not None else ""
    return [f"{row.accuracy_numerics or formatting.UNKNOWN} / {prices or formatting.UNKNOWN}",
            row.batch or formatting.UNKNOWN]  # fmt: skip


def basis(row: ComparisonRow) -> str:
    """Return the same in words, for what is shown beside a mark of a chart; empty where nothing is priced."""
    if row.backbone is None or not row.batch:
        return ""
    return f"accuracy in {row.accuracy_numerics}, priced in {row.price_numerics}, batch {row.batch}"


def last_cells(row: ComparisonRow) -> list[str]:
    """Return the cells under ``LAST_COLUMNS``."""
    return [formatting.percent(row.failed_share)]


def versus_cells(row: ComparisonRow) -> list[str]:
    """Return the paired difference to the first run, its number of tasks and its corrected p value."""
    if row.versus_run is None:
        return ["reference", "", ""]
    return [
        formatting.points(row.versus_points, row.versus_high_points, row.versus_low_points),
        str(row.num_versus_pairs),
        formatting.probability(row.versus_p_holm),
    ]


def fits_cell(row: ComparisonRow) -> str:
    """Return the per cent of the finished rows that fit, those whose fit is uncertain, and the rows that failed."""
    if row.is_inapplicable:
        return INAPPLICABLE
    certain = formatting.percent(row.fits_share, digits=0)
    words = [f"+{formatting.percent(row.uncertain_share, digits=0)}?"] if row.uncertain_share else []
    words += [f"{row.num_failed} failed"] if row.num_failed and row.backbone is not None else []
    return certain + (f" ({', '.join(words)})" if words else "")


def margin(row: ComparisonRow) -> str:
    """Return the smallest margin of the resource that decides, such as `` -384 KiB``; empty where none is known."""
    if row.limiting == "infeasible":
        return f" {row.num_infeasible}/{row.num_rows}"
    values = {
        "ram": formatting.memory(row.ram_margin_bytes), "flash": formatting.memory(row.flash_margin_bytes),
        "time": formatting.duration(row.time_margin_ms), "energy": formatting.energy(row.energy_margin_mj),
    }  # fmt: skip
    text = values[row.limiting or "ram"]
    return "" if text == formatting.UNKNOWN else f" {text if text.startswith('-') else '+' + text}"


def _gain(row: ComparisonRow, gain: float | None, low: float | None, high: float | None) -> str:
    return "reference" if row.method == BASELINE else formatting.points(gain, high, low)


def _quantiles(values: list[str], num: int) -> str:
    """Return median, p95 and p99; where n is too small, which n it takes."""
    if values[0] == formatting.UNKNOWN:
        return values[0]
    if num < MIN_TASKS_P95:
        return f"{values[0]} / n<{MIN_TASKS_P95}"
    return f"{values[0]} / {values[1]} / " + (values[2] if num >= MIN_TASKS_P99 else f"n<{MIN_TASKS_P99}")
