"""Plans that need no task: what a method updates is known before any image is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tinytrain_dist.costs.schemes import default_scheme, scheme_plan
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.graphs.adapters import adapter_plan
from tinytrain_dist.graphs.layer_alone import PATTERN, layer_alone
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan


@dataclass(frozen=True, kw_only=True)
class StaticPlan:
    """A plan, whether the FullTrain formula counts its memory, and whether the device pays for a Fisher pass."""

    plan: UpdatePlan
    full: bool = False
    measures_fisher: bool = False


def _none(graph: LayerGraph) -> StaticPlan:
    return StaticPlan(plan=UpdatePlan(backbone=graph.name))


def _last_layer(graph: LayerGraph) -> StaticPlan:
    return StaticPlan(plan=UpdatePlan(backbone=graph.name, updates=(LayerUpdate(layer=len(graph.layers) - 1),)))


def _full_train(graph: LayerGraph) -> StaticPlan:
    return StaticPlan(plan=full_plan(graph), full=True)


def _sparse_update(graph: LayerGraph) -> StaticPlan:
    scheme = default_scheme(graph.name)
    if scheme is None:
        raise ConfigError(f"sparse_update: no static scheme is shipped for {graph.name!r}; give one with --plan FILE")
    return StaticPlan(plan=scheme_plan(graph, scheme))


def _adapters(graph: LayerGraph, *, dropped_share: float) -> StaticPlan:
    return StaticPlan(plan=adapter_plan(graph, dropped_share=dropped_share))


_BUILDERS: dict[str, Callable[[LayerGraph], StaticPlan]] = {
    "none": _none,
    "last_layer": _last_layer,
    "full_train": _full_train,
    "transductive": _full_train,
    "tiny_tl": partial(_adapters, dropped_share=0.0),
    "adapter_drop_25": partial(_adapters, dropped_share=0.25),
    "adapter_drop_50": partial(_adapters, dropped_share=0.5),
    "adapter_drop_75": partial(_adapters, dropped_share=0.75),
    "sparse_update": _sparse_update,
}
STATIC_METHODS = tuple(_BUILDERS)
"""Methods whose plan is known without a task."""
PLANNED_METHODS = frozenset({"tinytrain"})
"""Methods whose plan depends on the task: it has to be given."""
NETWORK_FREE = "raw_pixels"


def static_plan(method: str, graph: LayerGraph) -> StaticPlan:
    """Return the plan of ``method``; raises ``ConfigError`` where it is not known without a task."""
    if method in PLANNED_METHODS:
        raise ConfigError(f"method {method!r} chooses its layers per task; give the plan of one task with --plan FILE")
    if method == NETWORK_FREE:
        raise ConfigError(f"method {method!r} uses no network and costs nothing that is counted here")
    alone = layer_alone(method)
    if alone is not None:  # a task decides which channels the quarter holds, not how many
        return StaticPlan(plan=alone.plan(graph), measures_fisher=alone.quarter is not None)
    if method not in _BUILDERS:
        raise ConfigError(f"unknown method {method!r}; {nearest(method, [*_BUILDERS, *PLANNED_METHODS, PATTERN])}")
    return _BUILDERS[method](graph)
