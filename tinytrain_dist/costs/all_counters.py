"""Every counter of one plan, term by term, under names that carry the unit: what ``tinytrain costs`` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tinytrain_dist.costs.fit import counted_memory
from tinytrain_dist.costs.lifetime import lifetime_memory
from tinytrain_dist.costs.lifetime_graph import FP32_RUNTIME, INT8_RUNTIME, TINYENGINE_RUNTIME, RuntimeRules
from tinytrain_dist.costs.macs import fisher_macs, plan_macs
from tinytrain_dist.costs.microcontroller_counter import microcontroller_memory
from tinytrain_dist.costs.pricing import selection_macs, training_macs
from tinytrain_dist.costs.saved_exact import saved_exact_bytes
from tinytrain_dist.costs.static_plans import StaticPlan
from tinytrain_dist.costs.workload import Workload
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.graphs.layer_graph import LayerGraph

ELEMENT_BYTES = {"fp32": 4, "int8": 1}


def element_bytes(precision: str) -> int:
    """Return the bytes of one weight or activation; raises ``ConfigError`` for an unknown precision."""
    if precision not in ELEMENT_BYTES:
        raise ConfigError(f"unknown precision {precision!r}; {nearest(precision, ELEMENT_BYTES)}")
    return ELEMENT_BYTES[precision]


def memory_counters(
    graph: LayerGraph, chosen: StaticPlan, workload: Workload, *, precision: str = "fp32"
) -> dict[str, Any]:
    """Return the memory counters side by side; the paper's terms and ``saved_exact`` at ``precision``."""
    plan, element = chosen.plan, element_bytes(precision)
    paper = counted_memory(
        graph, plan, full=chosen.full, batch=workload.batch, optimizer=workload.optimizer, bytes_per_element=element
    )
    sparse = microcontroller_memory(graph, plan, batch=workload.batch)
    return {
        "paper_memory_rule": paper.rule,
        "paper_memory_precision": precision,
        "updated_weight_bytes": paper.updated_weight_bytes,
        "optimizer_bytes": paper.optimizer_bytes,
        "forward_activation_bytes": paper.forward_activation_bytes,
        "saved_activation_bytes": paper.saved_activation_bytes,
        "activation_bytes": paper.activation_bytes,
        "paper_memory_bytes": paper.total_bytes,
        "parameter_bytes": paper.parameter_bytes,
        "paper_peak_bytes": paper.peak_bytes,
        "saved_exact_bytes": saved_exact_bytes(graph, plan, batch=workload.batch, bytes_per_element=element),
        **{f"microcontroller_{key}": value for key, value in asdict(sparse).items()},
        "microcontroller_memory_bytes": sparse.total_bytes,
        **_lifetime("int8", INT8_RUNTIME, graph, chosen, workload),
        **_lifetime("tinyengine", TINYENGINE_RUNTIME, graph, chosen, workload),
        **_lifetime("fp32", FP32_RUNTIME, graph, chosen, workload),
    }


def _lifetime(
    name: str, runtime: RuntimeRules, graph: LayerGraph, chosen: StaticPlan, workload: Workload
) -> dict[str, int]:
    rules = RuntimeRules(**{**asdict(runtime), "fused_update": workload.fused_update})
    memory = lifetime_memory(
        graph, chosen.plan, rules=rules, optimizer=workload.optimizer, batch=workload.batch, way=workload.way,
        inspected=workload.inspected,
    )  # fmt: skip
    terms = {f"lifetime_{name}_{key}": value for key, value in asdict(memory).items()}
    sums = {"arena_bytes": memory.arena_bytes, "memory_bytes": memory.total_bytes}
    return terms | {f"lifetime_{name}_{key}": value for key, value in sums.items()}


def macs_counters(graph: LayerGraph, chosen: StaticPlan, workload: Workload) -> dict[str, int]:
    """Return the MACs of one image and of the whole task."""
    counted = plan_macs(graph, chosen.plan)
    trains = workload.trains(chosen.plan)
    recomputed = workload.iterations * workload.recomputed_images * counted.forward if trains else 0
    return {
        "forward_macs": counted.forward,
        "input_grad_macs": counted.input_grad,
        "weight_grad_macs": counted.weight_grad,
        "backward_macs": counted.backward,
        "backward_macs_with_biases": plan_macs(graph, chosen.plan, chain="everything").backward,
        "fisher_macs": selection_macs(graph, workload),
        "recomputed_forward_macs": recomputed,
        "training_macs": training_macs(graph, chosen.plan, workload),
        "fisher_macs_per_image": fisher_macs(graph, workload.inspected),
    }
