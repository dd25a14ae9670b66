"""What the plans update: per layer, the share of tasks that update it and the mean share of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from tinytrain_dist.foundation.errors import TinyTrainError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.reporting.comparison import ADAPTATION
from tinytrain_dist.reporting.runs import RunResults


@dataclass(frozen=True, kw_only=True)
class PlanPicture:
    """The plans of one adaptation on one device; ``domain`` is None over all domains.

    ``layers`` maps a layer's index to (share of the tasks that update it, mean over all tasks of the number of its
    updated channels).
    """

    domain: str | None
    device: str
    key: tuple[str | None, ...]
    num: int
    layers: dict[int, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class LayerName:
    """A layer as the page names it; ``channels`` is what a share of its channels refers to (None: unknown network)."""

    index: int
    text: str
    channels: int | None


def plan_pictures(run: RunResults) -> list[PlanPicture]:
    """Return a picture per (domain, device, adaptation) and per (device, adaptation); methods without plans have none.

    Plans are counted before they are taken apart: a million rows have few different ones.
    """
    group = f"device, {', '.join(ADAPTATION)}"
    found = run.select(f"""
    WITH kinds AS (
        SELECT domain, {group}, plan_layers, plan_channels, count(*) AS num
        FROM rows WHERE ok AND device IS NOT NULL AND plan_layers IS NOT NULL GROUP BY ALL
    ), totals AS (
        SELECT grouping(domain) AS pooled, domain, {group}, sum(num)::BIGINT AS total
        FROM kinds GROUP BY GROUPING SETS ((domain, {group}), ({group}))
    ), parts AS (
        SELECT domain, {group}, unnest(plan_layers) AS layer, unnest(plan_channels) AS channels, num FROM kinds
    ), sums AS (
        SELECT grouping(domain) AS pooled, domain, {group}, layer, sum(num)::BIGINT AS num,
            sum(num * channels)::BIGINT AS channels
        FROM parts GROUP BY GROUPING SETS ((domain, {group}, layer), ({group}, layer))
    )
    SELECT s.*, t.total FROM sums s JOIN totals t
    ON {" AND ".join(f"s.{n} IS NOT DISTINCT FROM t.{n}" for n in ("pooled", "domain", *group.split(", ")))}
    ORDER BY s.pooled, s.domain, {", ".join(f"s.{name}" for name in group.split(", "))}, layer
    """)
    names = ("pooled", "domain", "device", *ADAPTATION, "total")
    return [
        PlanPicture(
            domain=None if place[0] else place[1],
            device=place[2],
            key=tuple(place[3:-1]),
            num=place[-1],
            layers={row["layer"]: (row["num"] / place[-1], row["channels"] / place[-1]) for row in rows},
        )
        for place, rows in groupby(found, key=lambda row: tuple(row[name] for name in names))
    ]


def layer_names(run: RunResults, used: set[int]) -> list[LayerName]:
    """Return every layer of the run's network, or just the ``used`` ones where it is not one network known here."""
    networks = run.select("SELECT DISTINCT backbone, resolution FROM rows WHERE backbone IS NOT NULL")
    try:
        if len(networks) != 1:
            raise TinyTrainError("several networks")
        graph = layer_graph(networks[0]["backbone"], networks[0]["resolution"])
    except TinyTrainError:
        return [LayerName(index=index, text=str(index), channels=None) for index in sorted(used)]
    inputs = run.config.get("selection", {}).get("side") == "input"
    return [
        LayerName(
            index=layer.index,
            text=f"{layer.index} {layer.role}",
            channels=layer.channels_per_group * layer.groups if inputs else layer.out_channels,
        )
        for layer in graph.layers
    ]
