"""The published tables, row by row."""

from __future__ import annotations

import csv
from pathlib import Path

from tinytrain_dist.costs.static_plans import static_plan
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan

KIB, MIB = 1024, 1024**2


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of ``reference/NAME.csv``."""
    with (Path(__file__).parent / "reference" / f"{name}.csv").open() as stream:
        return list(csv.DictReader(stream))


def plan_of(graph: LayerGraph, method: str) -> UpdatePlan:
    return static_plan(method, graph).plan


def from_layer(graph: LayerGraph, start: int) -> UpdatePlan:
    """All weights and biases of the layers from ``start`` on."""
    layers = tuple(range(start, len(graph.layers)))
    return UpdatePlan(
        backbone=graph.name, updates=tuple(LayerUpdate(layer=index) for index in layers), bias_layers=layers
    )
