"""Accuracy along the iterations, against the time the device needs to get there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from tinytrain_dist.reporting.comparison import ADAPTATION
from tinytrain_dist.reporting.exact_sums import estimate, moments_sql
from tinytrain_dist.reporting.intervals import Estimate
from tinytrain_dist.reporting.page_parts import sampled_part
from tinytrain_dist.reporting.runs import RunResults


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Mean query accuracy (share) after ``iteration`` steps, and the median time (s) at which a device is there."""

    iteration: int
    time_s: float
    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """The curve of one adaptation on one device; ``domain`` is None over all domains."""

    domain: str | None
    device: str
    key: tuple[str | None, ...]
    points: tuple[CurvePoint, ...]


def learning_curves(run: RunResults) -> list[LearningCurve]:
    """Return the stored curves; empty where none were stored (``finetune.curve_every``).

    An iteration's time is loading + selection + its part of training and swapping. Iteration 0 is the accuracy
    before the update, at the moment training starts.
    """
    if sampled_part(run, "curves") is None:
        return []
    group = f"device, {', '.join(ADAPTATION)}"
    found = run.select(f"""
    WITH points AS (
        SELECT DISTINCT task_id, checkpoint, method, variant, plan_hash, iteration, accuracy FROM sampled_curves
    ), starts AS (
        SELECT DISTINCT task_id, checkpoint, method, variant, plan_hash, 0 AS iteration, NULL::DOUBLE AS accuracy
        FROM points
    ), timed AS (
        SELECT r.domain, {", ".join(f"r.{name.strip()}" for name in group.split(","))}, p.iteration,
            coalesce(p.accuracy, r.accuracy_before) AS accuracy,
            (r.load_ms + r.selection_ms + (r.training_ms + r.swap_ms) * p.iteration / r.iterations) / 1000 AS time_s
        FROM rows r JOIN (FROM points UNION ALL FROM starts) p
            USING (task_id, checkpoint, method, variant, plan_hash)
        WHERE r.planned AND r.iterations > 0 AND r.training_ms IS NOT NULL
    )
    SELECT grouping(domain) AS pooled, domain, {group}, iteration,
        quantile_cont(time_s, 0.5) AS time_s, {moments_sql("accuracy", "accuracy")}
    FROM timed GROUP BY GROUPING SETS ((domain, {group}, iteration), ({group}, iteration))
    ORDER BY pooled, domain, {group}, iteration
    """)
    names = ("pooled", "domain", "device", *ADAPTATION)
    return [
        LearningCurve(
            domain=None if place[0] else place[1],
            device=place[2],
            key=tuple(place[3:]),
            points=tuple(
                CurvePoint(iteration=row["iteration"], time_s=row["time_s"], accuracy=mean)
                for row in rows
                if (mean := estimate(row, "accuracy")) is not None
            ),
        )
        for place, rows in groupby(found, key=lambda row: tuple(row[name] for name in names))
    ]
