"""Memory terms and MACs of many plans at once: the vectors the vectorised prices are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.costs.counters import STATE_WORD_BYTES, STATE_WORDS, full_memory, module_elements
from tinytrain_dist.costs.macs import adapter_input_grad_macs
from tinytrain_dist.costs.plan_arrays import Flags, Ints, PlanArrays
from tinytrain_dist.costs.saved_exact import module_kept_elements
from tinytrain_dist.costs.workload import Workload
from tinytrain_dist.graphs.adapters import LiteResidual, block_ends, lite_residual
from tinytrain_dist.graphs.layer_graph import LayerGraph

_FP32 = 4


@dataclass(frozen=True, kw_only=True)
class PlanFeatures:
    """Vectors over plans, ``[num_plans]``; ``columns`` holds the result columns that depend on no device."""

    columns: dict[str, Ints]
    paper_memory: Ints
    forward_macs: Ints
    backward_macs: Ints
    updated_weights: Ints
    module_weights: Ints
    module_norms: Ints
    empty: Flags


def plan_features(graph: LayerGraph, plans: PlanArrays, workload: Workload) -> PlanFeatures:
    """Return the features; equal, plan by plan, to what ``counted_memory`` and ``plan_macs`` return."""
    modules = {end: lite_residual(graph, end) for end in block_ends(graph)}
    weights = plans.weights.sum(axis=1)
    counts = {name: _over_modules(plans, modules, name) for name in ("weights", "norm_parameters", "macs")}
    trained = weights + counts["weights"] + counts["norm_parameters"]
    chain = _weight_chain(plans)
    macs = _macs(graph, plans, modules, weights=weights, chain=chain)
    memory = _paper_terms(graph, plans, modules, workload, trained=trained, chain=chain)
    activations = np.maximum(memory["forward_activation_bytes"], memory["saved_activation_bytes"])
    paper = memory["updated_weight_bytes"] + memory["optimizer_bytes"] + activations
    return PlanFeatures(
        columns={
            **memory,
            "saved_exact_bytes": _saved_exact(graph, plans, modules, workload.batch),
            "paper_memory_bytes": paper,
            "paper_peak_bytes": paper + memory["parameter_bytes"],
            **macs,
        },
        paper_memory=paper,
        forward_macs=macs["forward_macs"],
        backward_macs=macs["input_grad_macs"] + macs["weight_grad_macs"],
        updated_weights=weights,
        module_weights=counts["weights"],
        module_norms=counts["norm_parameters"],
        empty=plans.start == len(graph.layers),
    )


def _over_modules(plans: PlanArrays, modules: dict[int, LiteResidual], name: str) -> Ints:
    ends = list(modules)
    values = np.array([getattr(modules[end], name) for end in ends], np.int64)
    total: Ints = plans.adapters[:, ends].astype(np.int64) @ values
    return total


def _weight_chain(plans: PlanArrays) -> Ints:
    """Return where the paper's chain starts: at the first weight, else where anything changes."""
    trained = (plans.weights > 0) | plans.adapters
    return np.where(trained.any(axis=1), trained.argmax(axis=1), plans.start)


def _suffix(values: list[int]) -> Ints:
    """Return the sum from each layer on, and 0 after the last."""
    return np.append(np.cumsum(np.array(values, np.int64)[::-1])[::-1], 0)


def _macs(
    graph: LayerGraph, plans: PlanArrays, modules: dict[int, LiteResidual], *, weights: Ints, chain: Ints
) -> dict[str, Ints]:
    num_layers = len(graph.layers)
    after = _suffix([layer.macs for layer in graph.layers])
    pixels = np.array([layer.out_size**2 for layer in graph.layers], np.int64)
    added = _over_modules(plans, modules, "macs")
    forward = graph.forward_macs + added
    input_grad = after[np.minimum(chain + 1, num_layers)]
    for end, module in modules.items():
        passed = np.array([adapter_input_grad_macs(graph, module, start) for start in range(num_layers + 1)])
        input_grad = input_grad + plans.adapters[:, end] * passed[chain]
    whole = weights == graph.weights
    return {
        "forward_macs": forward,
        "input_grad_macs": np.where(whole, forward, input_grad),
        "weight_grad_macs": np.where(whole, forward, (plans.weights * pixels).sum(axis=1) + added),
    }


def _paper_terms(
    graph: LayerGraph,
    plans: PlanArrays,
    modules: dict[int, LiteResidual],
    workload: Workload,
    *,
    trained: Ints,
    chain: Ints,
) -> dict[str, Ints]:
    batch, ones = workload.batch, np.ones_like(trained)
    full = full_memory(graph, batch=batch, optimizer=workload.optimizer)
    forward = full.forward_activation_bytes * ones
    if workload.full:
        return {
            "updated_weight_bytes": full.updated_weight_bytes * ones, "optimizer_bytes": full.optimizer_bytes * ones,
            "forward_activation_bytes": forward, "saved_activation_bytes": full.saved_activation_bytes * ones,
            "parameter_bytes": full.parameter_bytes * ones,
        }  # fmt: skip
    words = STATE_WORDS[workload.optimizer] * STATE_WORD_BYTES
    has_modules = plans.adapters.any(axis=1)
    parameters = graph.parameters + (trained - plans.weights.sum(axis=1))
    return {
        "updated_weight_bytes": trained * _FP32,
        "optimizer_bytes": trained * words,
        "forward_activation_bytes": forward,
        "saved_activation_bytes": np.where(
            has_modules, _saved_by_modules(graph, plans, modules, batch, chain), _saved(graph, batch, chain)
        ),
        "parameter_bytes": parameters * _FP32,
    }


def _saved(graph: LayerGraph, batch: int, chain: Ints) -> Ints:
    inputs = _suffix([layer.input_elements for layer in graph.layers])
    masks = _suffix([layer.output_elements * layer.has_activation for layer in graph.layers])
    saved: Ints = (batch * inputs * _FP32 - (-batch * masks // 8))[chain]
    return saved


def _saved_by_modules(
    graph: LayerGraph, plans: PlanArrays, modules: dict[int, LiteResidual], batch: int, chain: Ints
) -> Ints:
    passed = _suffix([layer.output_elements * layer.has_activation for layer in graph.layers])
    elements: Ints = passed[np.minimum(chain + 1, len(graph.layers))]
    own = np.array([module_elements(module) for module in modules.values()], np.int64)
    elements = elements + plans.adapters[:, list(modules)].astype(np.int64) @ own
    updated = plans.weights > 0
    first = np.where(updated.any(axis=1), updated.argmax(axis=1), len(graph.layers))
    return batch * _FP32 * elements + _saved(graph, batch, first)


def _saved_exact(graph: LayerGraph, plans: PlanArrays, modules: dict[int, LiteResidual], batch: int) -> Ints:
    masks = _suffix([layer.output_elements * layer.has_activation for layer in graph.layers])[plans.start]
    chosen = plans.adapters[:, list(modules)].astype(np.int64)
    kept = chosen @ np.array([module_kept_elements(module) for module in modules.values()], np.int64)
    masks = masks + chosen @ np.array([m.convolutions[0].output_elements for m in modules.values()], np.int64)
    elements = plans.kept_inputs.sum(axis=1) + kept
    exact: NDArray[np.int64] = batch * elements * _FP32 - (-batch * masks // 8)
    return exact
