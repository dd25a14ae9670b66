"""Whether a device's memory suffices: the one rule that prices a plan and that a budget inverts.

``peak = counter(plan) + parameters resident in RAM + OS overhead``, where nothing but the counter depends on the
plan. On a microcontroller frozen weights stay in flash, so no parameters are added (the counter holds the updated
ones); on a Linux board all parameters are.
The Fisher pass has no term of its own here: at batch 1 what it keeps stays below what the counter takes for the
forward pass on the paper's three networks, which only a lifetime planner can say for every case.
"""

from __future__ import annotations

from tinytrain_dist.costs.counters import STATE_WORD_BYTES, PaperMemory, adapter_memory, full_memory, paper_memory
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan


def counted_memory(
    graph: LayerGraph,
    plan: UpdatePlan,
    *,
    full: bool = False,
    batch: int = 1,
    optimizer: str = "adam",
    bytes_per_element: int = 4,
) -> PaperMemory:
    """Return the paper's counter by the formula that applies: FullTrain's when ``full``, the modules', the plan's."""
    if full:
        return full_memory(graph, batch=batch, bytes_per_element=bytes_per_element, optimizer=optimizer)
    if plan.adapters:
        return adapter_memory(graph, plan, batch=batch, bytes_per_element=bytes_per_element, optimizer=optimizer)
    return paper_memory(graph, plan, optimizer=optimizer, bytes_per_element=bytes_per_element, batch=batch)


def plan_memory_bytes(
    graph: LayerGraph,
    plan: UpdatePlan,
    counted_at: DeviceProfile | int = 4,
    *,
    optimizer: str = "adam",
    batch: int = 1,
) -> int:
    """Return what Algorithm 1 compares with a memory budget, in bytes.

    ``counted_at`` is the bytes per element (4: the paper's own budget, "around 1 MB") or the device whose free
    memory is the budget.
    """
    element = counted_at if isinstance(counted_at, int) else counted_at.bytes_per_element
    return paper_memory(graph, plan, optimizer=optimizer, bytes_per_element=element, batch=batch).total_bytes


def fixed_bytes(graph: LayerGraph, profile: DeviceProfile) -> int:
    """Return the RAM taken whatever the plan is: the operating system and the parameters resident in RAM."""
    resident = 0 if profile.device_class == "microcontroller" else graph.parameters * profile.bytes_per_element
    return profile.os_overhead_bytes + resident


def free_bytes(graph: LayerGraph, profile: DeviceProfile) -> int:
    """Return the RAM a plan may take under the profile's fit counter; negative when the network alone exceeds it."""
    return profile.ram_bytes - fixed_bytes(graph, profile)


def stored_parameter_bytes(graph: LayerGraph, profile: DeviceProfile) -> int:
    """Return the stored network: weights at the device's precision, normalisation (or folded biases) at 4 bytes."""
    return graph.weights * profile.bytes_per_element + graph.norm_parameters * STATE_WORD_BYTES


def device_budget(
    graph: LayerGraph, profile: DeviceProfile, *, memory_bytes: int | None = None, compute_share: float = 0.15
) -> Budget:
    """Return the budget of a plan on ``profile``.

    Parameters
    ----------
    memory_bytes
        An explicit budget, counted at fp32 as in the paper; ``None``: the profile's free memory, to be compared
        with ``plan_memory_bytes(graph, plan, profile)``: a plan within it fits the device's RAM. Free memory of
        nothing or less becomes 1 byte, under which no plan is feasible: a result, not an error.
    compute_share
        Share of FullTrain's backward MACs (2 x forward), above 0 and at most 1.
    """
    if not 0 < compute_share <= 1:
        raise ConfigError(f"budget.compute_share: found {compute_share!r}; allowed: a number above 0 and at most 1")
    memory = max(1, free_bytes(graph, profile)) if memory_bytes is None else memory_bytes
    return Budget(memory_bytes=memory, backward_macs=max(1, int(compute_share * 2 * graph.forward_macs)))
