"""Time of one image of many plans on one device: tables of the latency model per layer, looked up and summed.

Every number in the tables comes from the same functions that price a single plan, so the two cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.costs.adapter_latency import adapter_optimizer_ms, adapter_pass
from tinytrain_dist.costs.counters import STATE_WORDS
from tinytrain_dist.costs.latency import fisher_pass_ms, forward_ms, image_pass, layer_ms
from tinytrain_dist.costs.measured_plan_times import measured_optimizer, measured_weight_grads
from tinytrain_dist.costs.plan_arrays import Ints, PlanArrays
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.costs.workload import Workload
from tinytrain_dist.graphs.adapters import block_ends
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan

Floats = NDArray[np.float64]
Shares = tuple[tuple[int, Ints, Ints, Ints], ...]


@dataclass(frozen=True, kw_only=True)
class PlanTimes:
    """Milliseconds, ``[num_plans]``; ``fisher_ms`` is one image of the Fisher pass."""

    forward_ms: Floats
    image_ms: Floats
    optimizer_ms: Floats
    fisher_ms: float


def update_shares(plans: PlanArrays) -> Shares:
    """Return, per layer that any plan updates: its index, the plans, and their weights as distinct values."""
    return tuple(_distinct(plans))


def _distinct(plans: PlanArrays) -> Iterator[tuple[int, Ints, Ints, Ints]]:
    for layer in np.flatnonzero((plans.weights > 0).any(axis=0)):
        rows = np.flatnonzero(plans.weights[:, layer])
        values, place = np.unique(plans.weights[rows, layer], return_inverse=True)
        yield int(layer), rows, values, place


def plan_times(
    graph: LayerGraph, plans: PlanArrays, shares: Shares, profile: DeviceProfile, workload: Workload
) -> PlanTimes:
    """Return the times of every plan on ``profile``."""
    forward = np.full(len(plans.start), forward_ms(graph, profile))
    image = forward + _chain_table(graph, profile)[plans.start] + _weight_grads(graph, plans, shares, profile)
    optimizer = _optimizer(graph, plans, profile, workload)
    if plans.adapters.any():
        added_forward, added_image, added_optimizer = _modules(graph, plans, profile, workload)
        forward, image, optimizer = forward + added_forward, image + added_image, optimizer + added_optimizer
    fisher = fisher_pass_ms(graph, workload.inspected, profile)
    return PlanTimes(forward_ms=forward, image_ms=image, optimizer_ms=optimizer, fisher_ms=fisher)


def _optimizer(graph: LayerGraph, plans: PlanArrays, profile: DeviceProfile, workload: Workload) -> Floats:
    words = STATE_WORDS[workload.optimizer] / STATE_WORDS["adam"]
    if "optimizer" in profile.phases:
        return measured_optimizer(graph, plans, profile.phases["optimizer"], words=words)
    return np.asarray(plans.weights.sum(axis=1) * words * profile.optimizer_ns_per_weight / 1e6, np.float64)


def _chain_table(graph: LayerGraph, profile: DeviceProfile) -> Floats:
    """Return the input gradients of the chain by its first layer; 0 where nothing changes."""
    starts = range(len(graph.layers))
    plans = (UpdatePlan(backbone=graph.name, bias_layers=(start,)) for start in starts)
    return np.array([*(image_pass(graph, plan, profile).input_grad_ms for plan in plans), 0.0])


def _weight_grads(graph: LayerGraph, plans: PlanArrays, shares: Shares, profile: DeviceProfile) -> Floats:
    if "weight_grad" in profile.phases:
        return measured_weight_grads(graph, plans, profile.phases["weight_grad"])
    total = np.zeros(len(plans.start))
    ratio = profile.weight_grad_cost_ratio
    for index, rows, values, place in shares:
        layer = graph.layers[index]
        table = [layer_ms(layer, profile, cost_ratio=ratio, share=int(v) / layer.weights) for v in values]
        total[rows] += np.array(table)[place]
    return total


def _modules(
    graph: LayerGraph, plans: PlanArrays, profile: DeviceProfile, workload: Workload
) -> tuple[Floats, Floats, Floats]:
    forward, image, optimizer = (np.zeros(len(plans.start)) for _ in range(3))
    for end in block_ends(graph):
        chosen = plans.adapters[:, end]
        by_itself = UpdatePlan(backbone=graph.name, adapters=(end,))
        stopped = adapter_pass(graph, by_itself, profile)
        passed = adapter_pass(graph, UpdatePlan(backbone=graph.name, adapters=(end,), bias_layers=(0,)), profile)
        first = graph.block_layers(graph.layers[end].block)[0].index
        forward += chosen * stopped.forward_ms
        image += chosen * np.where(first > plans.start, passed.total_ms, stopped.total_ms)
        optimizer += chosen * adapter_optimizer_ms(graph, by_itself, profile, optimizer=workload.optimizer)
    return forward, image, optimizer
