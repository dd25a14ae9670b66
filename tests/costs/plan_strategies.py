"""Hypothesis strategies: update plans of the bundled backbones."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tinytrain_dist.graphs.adapters import block_ends
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, side_channels

BACKBONES = ("mcunet", "mobilenet_v2", "proxylessnas")


@st.composite
def layer_updates(draw: st.DrawFn, graph: LayerGraph) -> tuple[LayerUpdate, ...]:
    """Some layers, each with its first channels of either side."""
    chosen = draw(st.sets(st.integers(0, len(graph.layers) - 1), min_size=1, max_size=6))
    updates = []
    for index in sorted(chosen):
        side = draw(st.sampled_from(["output", "input"]))
        limit = side_channels(graph.layer(index), side)
        updates.append(LayerUpdate(layer=index, channels=tuple(range(draw(st.integers(1, limit)))), side=side))
    return tuple(updates)


@st.composite
def plans(
    draw: st.DrawFn, *, backbones: Sequence[str] = BACKBONES, biases: bool = False, adapters: bool = False
) -> tuple[LayerGraph, UpdatePlan]:
    """A backbone and a plan of it."""
    graph = layer_graph(draw(st.sampled_from(backbones)))
    layers = st.lists(st.integers(0, len(graph.layers) - 1), unique=True, max_size=4).map(sorted).map(tuple)
    ends = st.lists(st.sampled_from(block_ends(graph)), unique=True, max_size=4).map(sorted).map(tuple)
    return graph, UpdatePlan(
        backbone=graph.name,
        updates=draw(layer_updates(graph)),
        bias_layers=draw(layers) if biases else (),
        scale_layers=draw(layers) if biases else (),
        adapters=draw(ends) if adapters else (),
    )
