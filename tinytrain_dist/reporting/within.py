"""The accuracy a device has reached after so many seconds or joules, from the stored learning curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tinytrain_dist.reporting.comparison import method_rank
from tinytrain_dist.reporting.comparison_query import ADAPTATION
from tinytrain_dist.reporting.intervals import t_interval
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.stored_parts import part_view

Resource = Literal["time", "energy"]
_UNITS: dict[str, str] = {"time": "ms", "energy": "mj"}


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What one adaptation has reached on one device when the time or energy is spent.

    ``accuracy_mean``: over the tasks that fit the device's memory and could start (loading, and the forward pass of
    the prototypes, are done). A task still loading or selecting has the accuracy before the update. ``share_done``:
    tasks whose whole adaptation is within the limit. ``iteration_p50``: median iteration of the last stored curve
    point within it; the curve is read at stored points only, never between them.
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
    share_done: float
    iteration_p50: float | None


def reached_within(run: RunResults, *, resource: Resource, limit: float) -> list[Reached]:
    """Return what is reached within ``limit`` milliseconds or millijoules, best first per device.

    An iteration's part of training and swapping is proportional (every iteration runs the same passes). A method
    without a curve (``finetune.curve_every=0``, or one that does not iterate) counts only when it is done.
    """
    unit = _UNITS[resource]
    curves = part_view(run, "curves")
    points = (
        f"SELECT DISTINCT task_id, checkpoint, method, variant, plan_hash, iteration, accuracy FROM {curves}"
        if curves
        else "SELECT task_id, checkpoint, method, variant, plan_hash, 0 AS iteration, accuracy_before AS accuracy "
        "FROM rows WHERE false"
    )
    group = ", ".join(("device", *ADAPTATION))
    total = "latency_ms" if resource == "time" else "energy_mj"
    found = run.select(
        f"""
        WITH points AS ({points}), cells AS (
            SELECT *, coalesce(load_{unit}, 0) + coalesce(selection_{unit}, 0) AS start,
                (training_{unit} + coalesce(swap_{unit}, 0)) / nullif(iterations, 0) AS step
            FROM rows WHERE planned AND fits <> 'no' AND {total} IS NOT NULL
        ), last AS (
            SELECT c.task_id, {", ".join(f"c.{name}" for name in ("device", *ADAPTATION))},
                any_value(c.accuracy_after) AS after, any_value(c.accuracy_before) AS before,
                any_value(c.{total}) AS total, any_value(c.iterations) AS iterations,
                arg_max(p.accuracy, p.iteration) FILTER (c.start + c.step * p.iteration <= $limit) AS here,
                max(p.iteration) FILTER (c.start + c.step * p.iteration <= $limit) AS iteration
            FROM cells c LEFT JOIN points p USING (task_id, checkpoint, method, variant, plan_hash)
            GROUP BY ALL
        ), known AS (
            SELECT *, CASE WHEN total <= $limit THEN after
                WHEN iterations > 0 THEN coalesce(here, before) END AS accuracy
            FROM last
        )
        SELECT {group}, count(accuracy) AS num, avg(accuracy ORDER BY accuracy) AS mean,
            stddev_samp(accuracy ORDER BY accuracy) AS deviation,
            count(*) FILTER (WHERE total <= $limit) / count(*) AS done,
            quantile_cont(CASE WHEN total <= $limit THEN iterations ELSE coalesce(iteration, 0) END, 0.5) AS iteration
        FROM known GROUP BY ALL
        """.replace("$limit", repr(float(limit)))
    )
    reached = []
    for row in found:
        estimate = t_interval(row["mean"], row["deviation"], row["num"])
        reached.append(
            Reached(
                resource=resource, limit=limit, device=row["device"], **{name: row[name] for name in ADAPTATION},
                num_tasks=row["num"], accuracy_mean=row["mean"], accuracy_low=estimate.low if estimate else None,
                accuracy_high=estimate.high if estimate else None, share_done=row["done"],
                iteration_p50=row["iteration"],
            )
        )  # fmt: skip
    return sorted(reached, key=lambda r: (r.device, -(r.accuracy_mean or 0.0), method_rank(r.method), r.variant))
