"""The planner's table: what each method gains and costs, per device, domain, way, shot, or over everything.

The task is the unit of every mean and interval. Where a table spans several devices, a task's values are
first averaged over the devices, so that no task counts twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tinytrain_dist.reporting import comparison_query as query
from tinytrain_dist.reporting.comparison_query import ADAPTATION, JOINT
from tinytrain_dist.reporting.comparison_row import ComparisonRow, cost_fields, limiting, range_fields
from tinytrain_dist.reporting.exact_sums import moments_of
from tinytrain_dist.reporting.intervals import (
    Estimate,
    IntervalKind,
    bootstrap_interval,
    domain_mean,
    t_interval,
    t_test,
)
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.multiplicity import holm
from tinytrain_dist.reporting.places import BY_CHOICES, PLACES, By, places_of
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.views import BASELINE

__all__ = [
    "ADAPTATION", "BY_CHOICES", "By", "ComparisonRow", "comparison_table", "display_order", "joined", "method_rank",
]  # fmt: skip
METHOD_ORDER = (
    "raw_pixels", "none", "last_layer", "full_train", "transductive", "tiny_tl", "adapter_drop_25",
    "adapter_drop_50", "adapter_drop_75", "sparse_update", "tinytrain",
)  # fmt: skip
Key = tuple[Any, ...]
NO_LIMITS = Limits()


def comparison_table(
    run: RunResults,
    *,
    by: str | Sequence[str] = "device",
    interval: IntervalKind = "t",
    limits: Limits = NO_LIMITS,
) -> list[ComparisonRow]:
    """Return one row per place and adaptation, in display order.

    Parameters
    ----------
    by
        What to group by (``BY_CHOICES``), several joined by commas; ``method`` groups by the adaptation alone.
    interval
        ``t``: Student's t. ``bootstrap``: percentile bootstrap over the tasks (of the paired differences for gains).
    limits
        Limits on RAM, time and energy on top of each device's own memory: decide what fits.

    Raises
    ------
    ConfigError
        Unknown ``by``.
    """
    places = places_of(by)
    run.connection.execute(query.rows_sql(places, limits))
    run.connection.execute(query.tasks_sql(places))
    group = query.group_of(places)
    domains: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for found in run.select(query.domains_sql(places, values=interval == "bootstrap")):
        domains[tuple(found[name] for name in group)].append(found)
    lines = run.select(query.lines_sql(places))
    rows = [_row(found, domains[tuple(found[n] for n in group)], places, interval, limits) for found in lines]
    return sorted(_corrected(rows), key=display_order)


def joined(rows: Iterable[object], name: str) -> str:
    """Return the distinct words that stand in the field ``name`` of these rows, such as ``fp32+int8``."""
    words = {word for row in rows for word in getattr(row, name).split(JOINT) if word}
    return JOINT.join(sorted(words))


def method_rank(method: str) -> tuple[int, str]:
    """Return a sort key: baselines first, then the methods in the usual order, then others by name."""
    known = METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)
    return known, method


def place_of(row: ComparisonRow) -> Key:
    """Return where a line stands: the values of its places, None where the table is not grouped by one."""
    return tuple(getattr(row, name) for name in PLACES)


def display_order(row: ComparisonRow) -> tuple[Any, ...]:
    """Return the sort key of a line: place, network, method, then what else tells two lines apart."""
    network = (row.backbone or "", row.initialization or "")
    return (*place_order(row), *network, method_rank(row.method), row.checkpoint or "", row.variant, row.run or "")


def place_order(row: ComparisonRow) -> tuple[Any, ...]:
    """Return the sort key of where a line stands."""
    return tuple(_natural(value) for value in place_of(row))


def _natural(value: str | None) -> tuple[int, str]:
    """Sort ``5`` before ``10-19`` and both before words."""
    digits = (value or "").strip(">").split("-")[0]
    return (int(digits) if digits.isdecimal() else -1, value or "")


def _corrected(rows: list[ComparisonRow]) -> list[ComparisonRow]:
    """Return the rows with Holm's correction over the gains of one place."""
    families: dict[Key, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        families[place_of(row)].append(number)
    for numbers in families.values():
        for number, p in zip(numbers, holm([rows[n].gain_p_value for n in numbers]), strict=True):
            rows[number] = replace(rows[number], gain_p_holm=p)
    return rows


def _row(
    found: dict[str, Any], domains: list[dict[str, Any]], places: tuple[str, ...], kind: IntervalKind, limits: Limits
) -> ComparisonRow:
    num_ok = found["num_rows"] - found["num_failed"] - found["num_inapplicable"]
    by_device = "device" in places
    gain = moments_of(found, "gain")
    p = t_test(gain.mean, gain.deviation, gain.num)
    used = [d for d in domains if d["accuracy_num"]]
    where: dict[str, Any] = {name: found.get(name) if name in places else None for name in PLACES}
    return ComparisonRow(
        **where,
        **{name: found[name] for name in ADAPTATION},
        num_tasks=found["accuracy_num"],
        num_domains=len(used),
        num_rows=found["num_rows"],
        num_failed=found["num_failed"],
        num_infeasible=found["num_infeasible"],
        num_inapplicable=found["num_inapplicable"],
        inapplicable=found["inapplicable"],
        failed_share=found["num_failed"] / found["num_rows"],
        fits_share=found["num_fitting"] / num_ok if num_ok else None,
        uncertain_share=found["num_undecided"] / num_ok if num_ok else None,
        **_fit_shares(found, limits),
        limiting=limiting(found),
        num_tasks_where_fits=found["accuracy_where_fits_num"],
        num_pairs=found["gain_num"],
        **_flat("accuracy", "mean", _estimate(found, domains, "accuracy", kind)),
        **_flat("accuracy_where_fits", "mean", _estimate(found, domains, "accuracy_where_fits", kind)),
        **_flat("gain", "points", _estimate(found, domains, "gain", kind)),
        **_flat("accuracy_domain", "mean", _domain_estimate(domains, "accuracy", kind)),
        **_flat("gain_domain", "points", _domain_estimate(domains, "gain", kind)),
        gain_p_value=None if found["method"] == BASELINE else p,
        interval=kind,
        **cost_fields(found if by_device else None),
        **range_fields(found),
        **{name: found[name] for name in ("accuracy_numerics", "price_numerics", "batch", "fit_counter")},
    )  # fmt: skip


def _fit_shares(found: dict[str, Any], limits: Limits) -> dict[str, Any]:
    num = found["num_planned"]
    return {
        f"fits_{name}_share": found[f"{name}_yes"] / num if num and _is_limited(name, limits) else None
        for name in query.RESOURCES
    }


def _is_limited(name: str, limits: Limits) -> bool:
    """RAM and flash always limit a device; time and energy only where a limit is given."""
    given = {"time": limits.max_latency_ms, "energy": limits.max_energy_mj}
    return name not in given or given[name] is not None


def _estimate(found: dict[str, Any], domains: list[dict[str, Any]], name: str, kind: IntervalKind) -> Estimate | None:
    if kind == "bootstrap":
        return bootstrap_interval([[v for d in domains for v in d[f"{name}_values"] or ()]], seed=name)
    moments = moments_of(found, name)
    return t_interval(moments.mean, moments.deviation, moments.num)


def _domain_estimate(domains: list[dict[str, Any]], name: str, kind: IntervalKind) -> Estimate | None:
    if kind == "bootstrap":
        return bootstrap_interval([d[f"{name}_values"] or () for d in domains], seed=name)
    return domain_mean([moments_of(domain, name) for domain in domains])


def _flat(name: str, middle: str, estimate: Estimate | None) -> dict[str, Any]:
    ends = (estimate.mean, estimate.low, estimate.high) if estimate else (None, None, None)
    suffix = f"_{middle}" if middle == "points" else ""
    return dict(zip((f"{name}_{middle}", f"{name}_low{suffix}", f"{name}_high{suffix}"), ends, strict=True))
