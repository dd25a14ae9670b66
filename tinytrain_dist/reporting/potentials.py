"""Which layers matter for a task: each layer's part of the task's Fisher potential."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from tinytrain_dist.reporting.exact_sums import estimate, moments_sql
from tinytrain_dist.reporting.intervals import Estimate
from tinytrain_dist.reporting.page_parts import sampled_part
from tinytrain_dist.reporting.runs import RunResults


@dataclass(frozen=True, kw_only=True)
class Potentials:
    """Per layer, the mean over tasks of its share of the inspected layers' potential; ``domain`` None: all domains."""

    domain: str | None
    shares: dict[int, Estimate]


def potentials(run: RunResults) -> list[Potentials]:
    """Return the shares per domain and over all domains; empty where no method measured Fisher information.

    Each task's potentials are divided by their sum first: their size differs between tasks by orders of magnitude.
    """
    if sampled_part(run, "fisher") is None:
        return []
    found = run.select(f"""
    WITH places AS (
        SELECT DISTINCT task_id, domain FROM rows
    ), tasks AS (
        SELECT task_id, checkpoint, list(layer ORDER BY layer) AS layers, list(potential ORDER BY layer) AS potentials
        FROM (SELECT DISTINCT task_id, checkpoint, layer, potential FROM sampled_fisher) GROUP BY ALL
    ), shares AS (
        SELECT domain, unnest(layers) AS layer, unnest(potentials) / nullif(list_sum(potentials), 0) AS share
        FROM tasks JOIN places USING (task_id)
    )
    SELECT grouping(domain) AS pooled, domain, layer, {moments_sql("share", "share")} FROM shares
    GROUP BY GROUPING SETS ((domain, layer), (layer)) ORDER BY pooled, domain, layer
    """)
    return [
        Potentials(
            domain=None if pooled else domain,
            shares={row["layer"]: share for row in rows if (share := estimate(row, "share")) is not None},
        )
        for (pooled, domain), rows in groupby(found, key=lambda row: (row["pooled"], row["domain"]))
    ]
