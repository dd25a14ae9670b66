"""The accuracy a device has reached after so many seconds or joules, from the stored learning curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tinytrain_dist.reporting.comparison import method_rank
from tinytrain_dist.reporting.comparison_query import ADAPTATION
from tinytrain_dist.reporting.intervals import t_interval
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.stored_parts import part_view
from tinytrain_dist.reporting.views import BASELINE

Resource = Literal["time", "energy"]
_UNITS: dict[str, str] = {"time": "ms", "energy": "mj"}


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What one adaptation has reached on one device when the time or energy is spent.

    ``accuracy_mean``: over the tasks that fit the device's memory and could start (loading, and the forward pass of
    the prototypes, are done: as long as ``none`` takes, where the run has it). A task still loading or selecting has
    the accuracy before the update.
    ``accuracy_common_mean``: the same over the ``num_common`` tasks every adaptation of the device has an accuracy on
    (one without any is left out of that), so that two can be compared. ``share_done``: tasks whose whole adaptation is
    within the limit. ``iteration_p50``: median iteration of the last stored curve point within it; the curve is read at
    stored points only, never between them. ``..._if_dear`` and ``..._if_cheap``: with every price at the upper and at
    the lower end of its interval.
    """

    resource: str
    limit: float
    device: str
    backbone: str | None
    initialization: str | None
    checkpoint: str | None
    method: str
    variant: str
    num_tasks: int
    accuracy_mean: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    accuracy_if_dear: float | None
    accuracy_if_cheap: float | None
    num_common: int
    accuracy_common_mean: float | None
    share_done: float
    share_done_if_dear: float | None
    share_done_if_cheap: float | None
    iteration_p50: float | None


_PLACE = ", ".join(("device", *ADAPTATION))
_KEYS = ("task_id", "checkpoint", "method", "variant", "plan_hash")
_ENDS = {"mid": "total", "cheap": "total_low", "dear": "total_high"}


def reached_within(run: RunResults, *, resource: Resource, limit: float) -> list[Reached]:
    """Return what is reached within ``limit`` milliseconds or millijoules, best first per device.

    An iteration's part of training and swapping is proportional (every iteration runs the same passes). A method
    without a curve (``finetune.curve_every=0``, or one that does not iterate) counts only when it is done. Where a
    task's outcome was taken from an equal plan, its curve is that plan's.
    """
    found = run.select(_statement(part_view(run, "curves"), resource).replace("$limit", repr(float(limit))))
    lines: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in found:
        lines.setdefault(tuple(row[name] for name in ("device", *ADAPTATION)), {})[row["price"]] = row
    reached = [_reached(at, resource=resource, limit=limit) for at in lines.values()]
    return sorted(reached, key=lambda r: (r.device, -(_order(r)), method_rank(r.method), r.variant))


def _reached(at: dict[str, dict[str, Any]], *, resource: str, limit: float) -> Reached:
    row = at["mid"]
    estimate = t_interval(row["mean"], row["deviation"], row["num"])
    ends = {f"accuracy_if_{end}": at[end]["mean"] for end in ("dear", "cheap")}
    ends |= {f"share_done_if_{end}": at[end]["done"] for end in ("dear", "cheap")}
    return Reached(
        resource=resource, limit=limit, device=row["device"], **{name: row[name] for name in ADAPTATION},
        num_tasks=row["num"], accuracy_mean=row["mean"], accuracy_low=estimate.low if estimate else None,
        accuracy_high=estimate.high if estimate else None, share_done=row["done"], iteration_p50=row["iteration"],
        num_common=row["num_common"], accuracy_common_mean=row["common"], **ends,
    )  # fmt: skip


def _order(reached: Reached) -> float:
    common = reached.accuracy_common_mean
    return (reached.accuracy_mean if common is None else common) or 0.0


def _statement(curves: str | None, resource: Resource) -> str:
    """Return the query for one row per line and end of the prices, the limit as ``$limit``."""
    unit = _UNITS[resource]
    keys = ", ".join(_KEYS)
    points = (
        f"SELECT DISTINCT {keys}, iteration, accuracy FROM {curves}"
        if curves
        else f"SELECT {keys}, 0 AS iteration, accuracy_before AS accuracy FROM rows WHERE false"
    )
    total = "latency" if resource == "time" else "energy"
    prices = ", ".join(f"('{name}', '{column}')" for name, column in _ENDS.items())
    scale = " ".join(f"WHEN '{name}' THEN {column}" for name, column in _ENDS.items())
    ready = " ".join(f"WHEN '{name}' THEN ready_{column}" for name, column in _ENDS.items())
    return f"""
    WITH points AS ({points}), owners AS (
        SELECT DISTINCT r.task_id, r.checkpoint, r.method, r.variant, r.plan_hash, r.accuracy_before, r.accuracy_after,
            r.loss_last
        FROM rows r JOIN (SELECT DISTINCT {keys} FROM points) p USING ({keys}) WHERE r.ok
    ), cells AS (
        SELECT *, coalesce(load_{unit}, 0) + coalesce(selection_{unit}, 0) AS start,
            (training_{unit} + coalesce(swap_{unit}, 0)) / nullif(iterations, 0) AS step,
            {total}_{unit} AS total, {total}_low_{unit} AS total_low, {total}_high_{unit} AS total_high
        FROM rows WHERE planned AND fits <> 'no' AND {total}_{unit} IS NOT NULL
    ), ready AS (
        SELECT task_id, device, checkpoint, min(total) AS ready_total, min(total_low) AS ready_total_low,
            min(total_high) AS ready_total_high
        FROM cells WHERE method = '{BASELINE}' GROUP BY ALL
    ), sourced AS (
        SELECT c.task_id, {", ".join(f"c.{name}" for name in _PLACE.split(", "))}, c.plan_hash, c.start, c.step,
            c.total, c.total_low, c.total_high, c.iterations, c.accuracy_before AS before, c.accuracy_after AS after,
            arg_min({{'method': o.method, 'variant': o.variant}},
                CASE WHEN o.method = c.method AND o.variant = c.variant THEN '' ELSE o.method || o.variant END) AS owner
        FROM cells c LEFT JOIN owners o ON o.task_id = c.task_id AND o.checkpoint = c.checkpoint
            AND o.plan_hash = c.plan_hash AND o.accuracy_before = c.accuracy_before
            AND o.accuracy_after = c.accuracy_after AND o.loss_last IS NOT DISTINCT FROM c.loss_last
        GROUP BY ALL
    ), priced AS (
        SELECT s.*, e.price, CASE e.price {scale} END AS spent, spent / nullif(total, 0) AS factor
        FROM sourced s CROSS JOIN (VALUES {prices}) e(price, source)
    ), last AS (
        SELECT c.task_id, {", ".join(f"c.{name}" for name in _PLACE.split(", "))}, c.price, c.spent, c.iterations,
            c.before, c.after,
            arg_max(p.accuracy, p.iteration) FILTER (c.factor * (c.start + c.step * p.iteration) <= $limit) AS here,
            max(p.iteration) FILTER (c.factor * (c.start + c.step * p.iteration) <= $limit) AS iteration
        FROM priced c LEFT JOIN points p ON p.task_id = c.task_id AND p.checkpoint = c.checkpoint
            AND p.plan_hash = c.plan_hash AND p.method = c.owner.method AND p.variant = c.owner.variant
        GROUP BY ALL
    ), known AS (
        SELECT *, CASE WHEN spent <= $limit THEN after
            WHEN iterations > 0 AND spent IS NOT NULL AND coalesce(CASE price {ready} END, 0) <= $limit
            THEN coalesce(here, before) END AS accuracy
        FROM last LEFT JOIN ready USING (task_id, device, checkpoint)
    ), able AS (
        SELECT device, count(DISTINCT ({", ".join(ADAPTATION)})) AS num FROM known
        WHERE accuracy IS NOT NULL AND price = 'mid' GROUP BY device
    ), common AS (
        SELECT device, task_id FROM known JOIN able USING (device) WHERE accuracy IS NOT NULL AND price = 'mid'
        GROUP BY device, task_id, able.num HAVING count(*) = able.num
    )
    SELECT {_PLACE}, price, count(accuracy) AS num, avg(accuracy ORDER BY accuracy) AS mean,
        stddev_samp(accuracy ORDER BY accuracy) AS deviation,
        count(accuracy) FILTER (shared) AS num_common,
        avg(accuracy ORDER BY accuracy) FILTER (shared) AS common,
        count(*) FILTER (WHERE spent <= $limit) / nullif(count(spent), 0) AS done,
        quantile_cont(CASE WHEN spent <= $limit THEN iterations ELSE coalesce(iteration, 0) END, 0.5) AS iteration
    FROM (SELECT k.*, c.task_id IS NOT NULL AS shared FROM known k LEFT JOIN common c USING (device, task_id))
    GROUP BY ALL
    """
