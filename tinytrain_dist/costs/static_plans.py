"""Plans that need no task: what a method updates is known before any image is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.graphs.adapters import adapter_plan
from tinytrain_dist.graphs.architectures import NO_MIX_SUFFIX
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan


@dataclass(frozen=True, kw_only=True)
class StaticPlan:
    """A plan and whether the FullTrain formula counts its memory."""

    plan: UpdatePlan
    full: bool = False


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A static scheme of MCUNetV3's SparseUpdate: input-channel share per layer, and the last biases."""

    input_shares: tuple[tuple[int, float], ...]
    num_last_biases: int


SPARSE_UPDATE_SCHEMES = {
    # the "100 KB" schemes of MCUNetV3 (arXiv 2206.15472; public repository mit-han-lab/tiny-training), with the bias
    # of the mix layer, which that repository's networks do not have. On mcunet it gives the 1.43 MiB and 11.9M MACs
    # of TinyTrain's Table 2; what TinyTrain used on the other two was never published.
    "mcunet": Scheme(
        input_shares=((21, 1.0), (24, 1.0), (27, 1.0), (30, 1.0), (36, 0.125), (39, 0.25)), num_last_biases=22
    ),
    "mobilenet_v2": Scheme(
        input_shares=((27, 1.0), (30, 1.0), (33, 1.0), (36, 1.0), (39, 1.0), (42, 0.125), (45, 0.5), (48, 1.0)),
        num_last_biases=26,
    ),
    "proxylessnas": Scheme(
        input_shares=((36, 1.0), (39, 0.5), (42, 1.0), (45, 1.0), (48, 0.25), (51, 0.5), (54, 1.0), (57, 1.0)),
        num_last_biases=26,
    ),
}
SPARSE_UPDATE_SCHEMES |= {
    f"{name}{NO_MIX_SUFFIX}": replace(SPARSE_UPDATE_SCHEMES[name], num_last_biases=25)
    for name in ("mobilenet_v2", "proxylessnas")
}


def scheme_plan(graph: LayerGraph, scheme: Scheme) -> UpdatePlan:
    """Return the plan of ``scheme`` with the first channels of each layer: which ones does not change the price."""
    updates = tuple(
        LayerUpdate(layer=index, channels=tuple(range(_num_channels(graph, index, share))), side="input")
        for index, share in scheme.input_shares
    )
    last = tuple(layer.index for layer in graph.layers[-scheme.num_last_biases :])
    return UpdatePlan(backbone=graph.name, updates=updates, bias_layers=last)


def _num_channels(graph: LayerGraph, index: int, share: float) -> int:
    return max(1, round(share * graph.layer(index).in_channels))


def _none(graph: LayerGraph) -> StaticPlan:
    return StaticPlan(plan=UpdatePlan(backbone=graph.name))


def _last_layer(graph: LayerGraph) -> StaticPlan:
    return StaticPlan(plan=UpdatePlan(backbone=graph.name, updates=(LayerUpdate(layer=len(graph.layers) - 1),)))


def _full_train(graph: LayerGraph) -> StaticPlan:
    return StaticPlan(plan=full_plan(graph), full=True)


def _sparse_update(graph: LayerGraph) -> StaticPlan:
    if graph.name not in SPARSE_UPDATE_SCHEMES:
        known = ", ".join(SPARSE_UPDATE_SCHEMES)
        raise ConfigError(
            f"sparse_update: no static scheme for {graph.name!r} (known: {known}); give one with --plan FILE"
        )
    return StaticPlan(plan=scheme_plan(graph, SPARSE_UPDATE_SCHEMES[graph.name]))


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
    if method not in _BUILDERS:
        raise ConfigError(f"unknown method {method!r}; {nearest(method, [*_BUILDERS, *PLANNED_METHODS])}")
    return _BUILDERS[method](graph)
