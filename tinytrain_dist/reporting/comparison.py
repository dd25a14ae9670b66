"""The planner's table: what each method gains and costs, per device, per domain, or over everything.

The task is the unit of every mean and interval. Where a table spans several devices, a task's values are
first averaged over the devices, so that no task counts twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tinytrain_dist.reporting.intervals import Estimate, p95, t_interval
from tinytrain_dist.reporting.runs import RunResults

By = Literal["device", "domain", "method"]
BY_CHOICES: tuple[By, ...] = ("device", "domain", "method")
METHOD_ORDER = (
    "raw_pixels", "none", "last_layer", "full_train", "transductive", "tiny_tl", "adapter_drop_25",
    "adapter_drop_50", "adapter_drop_75", "sparse_update", "tinytrain",
)  # fmt: skip
ADAPTATION = ("backbone", "initialization", "checkpoint", "method", "variant")
"""What a line of a table is about, next to its device or domain."""
JOINT = "+"
"""Joins the words of a row whose tasks differ, such as ``estimate+fitted``."""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One line of the table. Accuracies are shares (0 to 1), gains absolute points, None = not known.

    ``accuracy_*`` covers every finished task (an infeasible one keeps its accuracy before the update);
    ``accuracy_where_fits_*`` only the tasks whose plan fits the device. Costs (only by device) cover the
    finished tasks that have a plan; a p95 needs 59 of them. ``latency_low_ms`` and the like are medians of the
    ends of the price model's own interval. ``fits_share``, ``uncertain_share`` and ``num_infeasible`` count task and
    device pairs; a pair whose fit is uncertain is in neither ``fits_share`` nor ``accuracy_where_fits_*``.
    """

    device: str | None
    domain: str | None
    backbone: str | None
    initialization: str | None
    checkpoint: str | None
    method: str
    variant: str
    num_tasks: int
    num_rows: int
    num_failed: int
    num_infeasible: int
    failed_share: float
    fits_share: float | None
    uncertain_share: float | None
    accuracy_mean: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    num_tasks_where_fits: int
    accuracy_where_fits_mean: float | None
    accuracy_where_fits_low: float | None
    accuracy_where_fits_high: float | None
    num_pairs: int
    gain_points: float | None
    gain_low_points: float | None
    gain_high_points: float | None
    num_priced: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    num_energy_priced: int
    energy_p50_mj: float | None
    energy_p95_mj: float | None
    energy_low_mj: float | None
    energy_high_mj: float | None
    peak_p50_bytes: float | None
    peak_p95_bytes: float | None
    batch: str
    fit_counter: str
    standing: str
    accuracy_numerics: str
    price_numerics: str

    @property
    def numerics_differ(self) -> bool:
        """Return whether the accuracy was computed in another arithmetic than the device is priced in."""
        return self.backbone is not None and self.accuracy_numerics != self.price_numerics

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return dataclasses.asdict(self)


def comparison_table(run: RunResults, *, by: By = "device") -> list[ComparisonRow]:
    """Return one row per (device, adaptation), (domain, adaptation) or adaptation, in display order."""
    assert by in BY_CHOICES, by
    found = run.select(_query(by))
    rows = [_row(by, values) for values in found]
    return sorted(rows, key=_display_order)


def joined(rows: Iterable[ComparisonRow], name: str) -> str:
    """Return the distinct words that stand in the field ``name`` of these rows, such as ``fp32+int8``."""
    words = {word for row in rows for word in getattr(row, name).split(JOINT) if word}
    return JOINT.join(sorted(words))


def method_rank(method: str) -> tuple[int, str]:
    """Return a sort key: baselines first, then the methods in the usual order, then others by name."""
    known = METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)
    return known, method


def _display_order(row: ComparisonRow) -> tuple[Any, ...]:
    places = (row.device or "", row.domain or "", row.backbone or "", row.initialization or "")
    return (*places, method_rank(row.method), row.checkpoint or "", row.variant)


def _query(by: By) -> str:
    """Two steps: per task (over devices), then per line (over tasks). Sorted sums do not depend on row order."""
    group = ", ".join(([] if by == "method" else [by]) + list(ADAPTATION))
    return f"""
    WITH tasks AS (
        SELECT {group}, task_id,
            count(*) AS num_rows,
            count(*) FILTER (WHERE NOT ok) AS num_failed,
            count(*) FILTER (WHERE ok AND NOT planned) AS num_infeasible,
            count(*) FILTER (WHERE fitting) AS num_fitting,
            count(*) FILTER (WHERE undecided) AS num_undecided,
            avg(accuracy_after ORDER BY accuracy_after) FILTER (WHERE ok) AS accuracy,
            avg(accuracy_after ORDER BY accuracy_after) FILTER (WHERE fitting) AS accuracy_where_fits,
            avg(gain_points ORDER BY gain_points) AS gain
        FROM paired GROUP BY ALL
    ), lines AS (
        SELECT {group},
            sum(num_rows)::BIGINT AS num_rows, sum(num_failed)::BIGINT AS num_failed,
            sum(num_infeasible)::BIGINT AS num_infeasible, sum(num_fitting)::BIGINT AS num_fitting,
            sum(num_undecided)::BIGINT AS num_undecided,
            {_moments("accuracy")}, {_moments("accuracy_where_fits")}, {_moments("gain")}
        FROM tasks GROUP BY ALL
    ), prices AS (
        SELECT {group},
            count(latency_ms) FILTER (WHERE planned) AS num_priced,
            count(energy_mj) FILTER (WHERE planned) AS num_energy_priced,
            {_quantiles("latency", "ms")}, {_quantiles("energy", "mj")},
            {_quantile("peak_bytes", 0.5)} AS peak_p50_bytes, {_quantile("peak_bytes", 0.95)} AS peak_p95_bytes,
            {_words("batch::VARCHAR")} AS batch, {_words("fit_counter")} AS fit_counter,
            {_words("standing")} AS standing, {_words("accuracy_numerics")} AS accuracy_numerics,
            {_words("price_numerics")} AS price_numerics
        FROM paired GROUP BY ALL
    )
    SELECT lines.*, prices.* EXCLUDE ({group}) FROM lines JOIN prices
    ON {" AND ".join(f"lines.{name} IS NOT DISTINCT FROM prices.{name}" for name in group.split(", "))}
    """


def _moments(name: str) -> str:
    return (
        f"count({name}) AS {name}_num, avg({name} ORDER BY {name}) AS {name}_mean,"
        f" stddev_samp({name} ORDER BY {name}) AS {name}_deviation"
    )


def _quantile(column: str, share: float) -> str:
    return f"quantile_cont({column}, {share}) FILTER (WHERE planned)"


def _quantiles(phase: str, unit: str) -> str:
    return (
        f"{_quantile(f'{phase}_{unit}', 0.5)} AS {phase}_p50_{unit},"
        f" {_quantile(f'{phase}_{unit}', 0.95)} AS {phase}_p95_{unit},"
        f" {_quantile(f'{phase}_low_{unit}', 0.5)} AS {phase}_low_{unit},"
        f" {_quantile(f'{phase}_high_{unit}', 0.5)} AS {phase}_high_{unit}"
    )


def _words(expression: str) -> str:
    return f"coalesce(string_agg(DISTINCT {expression}, '{JOINT}' ORDER BY {expression}) FILTER (WHERE ok), '')"


def _row(by: By, found: dict[str, Any]) -> ComparisonRow:
    num_ok = found["num_rows"] - found["num_failed"]
    costs = _costs(found) if by == "device" else dict.fromkeys(_cost_names())
    counts = {"num_priced": found["num_priced"], "num_energy_priced": found["num_energy_priced"]}
    return ComparisonRow(
        device=found.get("device"),
        domain=found.get("domain"),
        **{name: found[name] for name in ADAPTATION},
        num_tasks=found["accuracy_num"],
        num_rows=found["num_rows"],
        num_failed=found["num_failed"],
        num_infeasible=found["num_infeasible"],
        failed_share=found["num_failed"] / found["num_rows"],
        fits_share=found["num_fitting"] / num_ok if num_ok else None,
        uncertain_share=found["num_undecided"] / num_ok if num_ok else None,
        num_tasks_where_fits=found["accuracy_where_fits_num"],
        num_pairs=found["gain_num"],
        **_flat("accuracy", _estimate(found, "accuracy")),
        **_flat("accuracy_where_fits", _estimate(found, "accuracy_where_fits")),
        **_gain(_estimate(found, "gain")),
        **(counts if by == "device" else dict.fromkeys(counts, 0)),
        **costs,
        **{name: found[name] for name in ("accuracy_numerics", "price_numerics", "batch", "fit_counter", "standing")},
    )


def _estimate(found: dict[str, Any], name: str) -> Estimate | None:
    return t_interval(found[f"{name}_mean"], found[f"{name}_deviation"], found[f"{name}_num"])


def _flat(name: str, estimate: Estimate | None) -> dict[str, Any]:
    ends = (estimate.mean, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip((f"{name}_mean", f"{name}_low", f"{name}_high"), ends, strict=True))


def _gain(estimate: Estimate | None) -> dict[str, Any]:
    ends = (estimate.mean, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip(("gain_points", "gain_low_points", "gain_high_points"), ends, strict=True))


def _cost_names() -> list[str]:
    timed = [f"{p}_{q}_{u}" for p, u in (("latency", "ms"), ("energy", "mj")) for q in ("p50", "p95", "low", "high")]
    return [*timed, "peak_p50_bytes", "peak_p95_bytes"]


def _costs(found: dict[str, Any]) -> dict[str, Any]:
    costs = {name: found[name] for name in _cost_names()}
    for name in ("latency_p95_ms", "peak_p95_bytes"):
        costs[name] = p95(costs[name], found["num_priced"])
    costs["energy_p95_mj"] = p95(costs["energy_p95_mj"], found["num_energy_priced"])
    return costs
