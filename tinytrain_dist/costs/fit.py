"""Whether a device's memory suffices: the one rule that prices a plan and that a budget inverts.

``peak = counter(plan) + parameters resident in RAM + OS overhead``, where nothing but the counter depends on the
plan. On a microcontroller frozen weights stay in flash, so no parameters are added (the counter holds the updated
ones); on a Linux board all parameters are.

A counter is wrong by something, and says by how much (``COUNTER_ERRORS``): a plan whose whole interval lies within
the RAM fits, one whose whole interval lies above does not, and between the two the answer is ``uncertain``. The
budget of a device is the memory under which the answer is ``yes``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from tinytrain_dist.costs.counters import STATE_WORD_BYTES, PaperMemory, adapter_memory, full_memory, paper_memory
from tinytrain_dist.costs.lifetime import WAY_DEFAULT, lifetime_memory
from tinytrain_dist.costs.lifetime_graph import INT8_RUNTIME
from tinytrain_dist.costs.profiles import DeviceProfile, FitCounter
from tinytrain_dist.costs.workload import Workload
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.adapters import lite_residuals
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan

Fits = Literal["yes", "no", "uncertain"]


@dataclass(frozen=True, kw_only=True)
class CounterError:
    """The real peak lies between these percentages of the counted one."""

    low_percent: int
    high_percent: int
    source: str


COUNTER_ERRORS: dict[FitCounter, CounterError] = {
    "lifetime_int8": CounterError(
        low_percent=70,
        high_percent=110,
        source="two measured training steps on an STM32F746 (arXiv 2206.15472, Fig. 10) lie at 71 and 104 % of the "
        "plan once the updated weights are added that TinyEngine's peak leaves out; above: 10 % assumed for "
        "fragmentation, stack and runtime state",
    ),
    "paper_fp32": CounterError(
        low_percent=90, high_percent=110, source="assumed: no measured peak of a Linux board is published"
    ),
}

ADAPTER_GAP_PERCENT = 95
"""Of adapters the paper publishes up to 1.95 times what its counter's rule gives here (TinyTL at batch 100: 542 MiB
against 278, ``docs/costs.md``); no rule explains it, so the high end of their peak allows for it on top."""


LIMITS = ("ram_bytes", "flash_bytes")
UNSOURCED_FACTOR = 2
"""A limit without a source may be half or double of what the profile says, as any estimate here."""


def limit_bytes(profile: DeviceProfile, field: str) -> tuple[int, int]:
    """Return what the device surely has of ``ram_bytes`` or ``flash_bytes``, and what it may have at most."""
    value: int = getattr(profile, field)
    if profile.provenance_of(field).kind != "unsourced":
        return value, value
    return value // UNSOURCED_FACTOR, value * UNSOURCED_FACTOR


def unsourced_limits(profile: DeviceProfile) -> list[str]:
    """Return which limits that decide ``fits`` have no source."""
    stated = [name for name in LIMITS if getattr(profile, name) is not None]
    return [name for name in stated if profile.provenance_of(name).kind == "unsourced"]


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


def fit_memory_bytes(graph: LayerGraph, plan: UpdatePlan, counter: FitCounter, workload: Workload) -> int:
    """Return the memory of ``plan`` under ``counter``, in bytes, without what is in RAM whatever the plan is."""
    if counter == "lifetime_int8":
        return _lifetime_int8_bytes(
            graph, plan, optimizer=workload.optimizer, batch=workload.batch, way=workload.way,
            inspected=workload.inspected, fused_update=workload.fused_update,
        )  # fmt: skip
    paper = counted_memory(graph, plan, full=workload.full, batch=workload.batch, optimizer=workload.optimizer)
    return paper.total_bytes


@lru_cache(maxsize=65536)
def _lifetime_int8_bytes(
    graph: LayerGraph,
    plan: UpdatePlan,
    *,
    optimizer: str,
    batch: int,
    way: int,
    inspected: tuple[int, ...],
    fused_update: bool,
) -> int:
    rules = replace(INT8_RUNTIME, fused_update=fused_update)
    counted = lifetime_memory(
        graph, plan, rules=rules, optimizer=optimizer, batch=batch, way=way, inspected=inspected
    )  # fmt: skip
    return counted.total_bytes


def plan_memory_bytes(
    graph: LayerGraph,
    plan: UpdatePlan,
    counted_at: DeviceProfile | int = 4,
    *,
    optimizer: str = "adam",
    batch: int = 1,
    way: int = WAY_DEFAULT,
    inspected: tuple[int, ...] = (),
) -> int:
    """Return what Algorithm 1 compares with a memory budget, in bytes.

    Parameters
    ----------
    counted_at
        The bytes per element (4: the paper's own budget, "around 1 MB") or the device whose free memory is the
        budget: then the device's fit counter counts.
    way, inspected
        Classes of the task and layers of its Fisher pass, as in ``Workload``.
    """
    if isinstance(counted_at, int):
        memory = counted_memory(graph, plan, optimizer=optimizer, bytes_per_element=counted_at, batch=batch)
        return memory.total_bytes
    workload = Workload(
        support_size=1, iterations=1, batch=batch, optimizer=optimizer, way=way, inspected=inspected
    )  # fmt: skip
    return fit_memory_bytes(graph, plan, counted_at.fit_counter, workload)


def fixed_bytes(graph: LayerGraph, profile: DeviceProfile) -> int:
    """Return the RAM taken whatever the plan is: the operating system and the parameters resident in RAM."""
    resident = 0 if profile.device_class == "microcontroller" else graph.parameters * profile.bytes_per_element
    return profile.os_overhead_bytes + resident


def free_bytes(graph: LayerGraph, profile: DeviceProfile) -> int:
    """Return the memory up to which a plan certainly fits under the profile's fit counter; may be negative."""
    high = COUNTER_ERRORS[profile.fit_counter].high_percent
    return 100 * limit_bytes(profile, "ram_bytes")[0] // high - fixed_bytes(graph, profile)


def adapter_gap_bytes(plan: UpdatePlan, profile: DeviceProfile, counted_bytes: int, *, full: bool = False) -> int:
    """Return what the peak of ``plan`` may exceed its counted memory by, beyond the counter's stated error."""
    if full or not plan.adapters or profile.fit_counter != "paper_fp32":
        return 0
    return ADAPTER_GAP_PERCENT * counted_bytes // 100


def peak_interval_bytes(profile: DeviceProfile, peak_bytes: int, *, gap_bytes: int = 0) -> tuple[int, int]:
    """Return the ends of the interval the real peak lies in; ``gap_bytes`` as ``adapter_gap_bytes`` returns them."""
    error = COUNTER_ERRORS[profile.fit_counter]
    return error.low_percent * peak_bytes // 100, -(-error.high_percent * peak_bytes // 100) + gap_bytes


def fits_device(profile: DeviceProfile, *, peak_bytes: tuple[int, int], flash_bytes: int) -> Fits:
    """Return whether RAM and flash both suffice without swapping; ``peak_bytes``: both ends of the peak.

    The RAM's uncertainty is the counter's; the flash's is half of the code allowance, which is assumed.
    A limit without a source may itself be half or double (``limit_bytes``).
    """
    low, high = peak_bytes
    words = {_word(low, high, limit_bytes(profile, "ram_bytes"))}
    if profile.flash_bytes is not None:
        half = profile.code_allowance_bytes // 2
        words.add(_word(flash_bytes - half, flash_bytes + half, limit_bytes(profile, "flash_bytes")))
    return "no" if "no" in words else "uncertain" if "uncertain" in words else "yes"


def _word(low: int, high: int, limits: tuple[int, int]) -> Fits:
    sure, at_most = limits
    return "yes" if high <= sure else "no" if low > at_most else "uncertain"


def stored_parameter_bytes(graph: LayerGraph, profile: DeviceProfile, plan: UpdatePlan | None = None) -> int:
    """Return the stored network: weights at the device's precision, normalisation (or folded biases) at 4 bytes.

    Frozen and updated weights alike: an updated one starts from storage. The modules of ``plan`` are added.
    """
    modules = () if plan is None else lite_residuals(graph, plan.adapters)
    weights = graph.weights + sum(module.weights for module in modules)
    norms = graph.norm_parameters + sum(module.norm_parameters for module in modules)
    return weights * profile.bytes_per_element + norms * STATE_WORD_BYTES


def device_budget(
    graph: LayerGraph, profile: DeviceProfile, *, memory_bytes: int | None = None, compute_share: float = 0.15
) -> Budget:
    """Return the budget of a plan on ``profile``.

    Parameters
    ----------
    memory_bytes
        An explicit budget, counted at fp32 as in the paper; ``None``: the memory up to which a plan certainly fits,
        to be compared with ``plan_memory_bytes(graph, plan, profile)``. Free memory of nothing or less becomes 1
        byte, under which no plan is feasible: a result, not an error; how far below it lies is kept beside it.
    compute_share
        Share of FullTrain's backward MACs (2 x forward), above 0 and at most 1.
    """
    if not 0 < compute_share <= 1:
        raise ConfigError(f"budget.compute_share: found {compute_share!r}; allowed: a number above 0 and at most 1")
    free = free_bytes(graph, profile) if memory_bytes is None else memory_bytes
    memory = free if memory_bytes is not None else max(1, free)
    return Budget(
        memory_bytes=memory,
        backward_macs=max(1, int(compute_share * 2 * graph.forward_macs)),
        overdrawn_bytes=memory - free,
    )
