"""Which layers matter for a task: each layer's part of the task's Fisher potential."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from tinytrain_dist.reporting.exact_sums import estimate, moments_sql
from tinytrain_dist.reporting.intervals import Estimate
from tinytrain_dist.reporting.page_parts import sampled_part
from tinytrain_dist.reporting.runs import RunResults

NETWORK = ("backbone", "initialization", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class Potentials:
    """Per layer, the mean over tasks of its share of the inspected layers' potential; ``domain`` None: all domains.

    ``network``: backbone, initialization and checkpoint, as one run may hold several.
    """

    domain: str | None
    network: tuple[str, str, str]
    shares: dict[int, Estimate]


def potentials(run: RunResults) -> list[Potentials]:
    """Return the shares per domain and over all domains; empty where no method measured Fisher information.

    Each task's potentials are divided by their sum first: their size differs between tasks by orders of magnitude.
    Tasks with a potential that is no number (runs of earlier versions may hold them) are left out.
    """
    if sampled_part(run, "fisher") is None:
        return []
    network = ", ".join(NETWORK)
    found = run.select(f"""
    WITH places AS (
        SELECT DISTINCT task_id, domain, backbone, initialization, checkpoint FROM rows WHERE backbone IS NOT NULL
    ), tasks AS (
        SELECT task_id, checkpoint, list(layer ORDER BY layer) AS layers, list(potential ORDER BY layer) AS potentials
        FROM (SELECT DISTINCT task_id, checkpoint, layer, potential FROM sampled_fisher) GROUP BY ALL
    ), shares AS (
        SELECT domain, backbone, initialization, checkpoint, unnest(layers) AS layer,
            unnest(potentials) / nullif(list_sum(potentials), 0) AS share
        FROM tasks JOIN places USING (task_id, checkpoint) WHERE isfinite(list_sum(potentials))
    )
    SELECT grouping(domain) AS pooled, domain, {network}, layer, {moments_sql("share", "share")} FROM shares
    GROUP BY GROUPING SETS ((domain, {network}, layer), ({network}, layer)) ORDER BY pooled, domain, {network}, layer
    """)
    return [
        Potentials(
            domain=None if place[0] else place[1],
            network=place[2:],
            shares={row["layer"]: share for row in rows if (share := estimate(row, "share")) is not None},
        )
        for place, rows in groupby(found, key=lambda row: tuple(row[name] for name in ("pooled", "domain", *NETWORK)))
    ]
