"""Laws of the cost model: more of anything never costs less."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from paper_tables import from_layer
from plan_strategies import BACKBONES, plans

from tinytrain_dist.costs.counters import full_memory, paper_memory
from tinytrain_dist.costs.fit import counted_memory, device_budget, free_bytes, limit_bytes, plan_memory_bytes
from tinytrain_dist.costs.latency import image_pass
from tinytrain_dist.costs.lifetime import lifetime_memory
from tinytrain_dist.costs.lifetime_graph import FP32_RUNTIME, INT8_RUNTIME, TINYENGINE_RUNTIME
from tinytrain_dist.costs.macs import fisher_macs, plan_macs
from tinytrain_dist.costs.microcontroller_counter import microcontroller_memory
from tinytrain_dist.costs.pricing import Workload, price
from tinytrain_dist.costs.profile_files import load_profile, profile_names
from tinytrain_dist.costs.saved_exact import saved_exact_bytes
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, side_channels

PROFILES = tuple(load_profile(name) for name in profile_names())
F746 = load_profile("stm32f746")
FEW = settings(max_examples=60, deadline=None)
RUNTIMES = (
    INT8_RUNTIME, FP32_RUNTIME, replace(INT8_RUNTIME, fused_update=True), replace(FP32_RUNTIME, reorder=False),
    TINYENGINE_RUNTIME,
)  # fmt: skip


def _costs(graph: LayerGraph, plan: UpdatePlan, *, batch: int = 1) -> list[float]:
    macs = plan_macs(graph, plan)
    lifetimes = [lifetime_memory(graph, plan, rules=rules, batch=batch) for rules in RUNTIMES]
    return [
        counted_memory(graph, plan, batch=batch).total_bytes,
        counted_memory(graph, plan, batch=batch, bytes_per_element=1).total_bytes,
        saved_exact_bytes(graph, plan, batch=batch),
        microcontroller_memory(graph, plan).total_bytes,
        *(memory.forward_bytes for memory in lifetimes),
        *(memory.backward_bytes for memory in lifetimes),
        *(memory.total_bytes for memory in lifetimes),
        macs.forward,
        macs.input_grad,
        macs.weight_grad,
        image_pass(graph, plan, F746).total_ms,
    ]


def _none_less(smaller: list[float], larger: list[float]) -> None:
    assert all(b >= a or abs(b - a) <= 1e-9 * abs(a) for a, b in zip(smaller, larger, strict=True)), (smaller, larger)


@FEW
@given(plans(biases=True, adapters=True), st.data())
def test_monotone_in_channels(case: tuple[LayerGraph, UpdatePlan], data: st.DataObject) -> None:
    graph, plan = case
    position = data.draw(st.integers(0, len(plan.updates) - 1))
    update = plan.updates[position]
    limit = side_channels(graph.layer(update.layer), update.side)
    more = replace(update, channels=tuple(range(data.draw(st.integers(len(update.channels or ()), limit)))))
    grown = replace(plan, updates=(*plan.updates[:position], more, *plan.updates[position + 1 :]))
    _none_less(_costs(graph, plan), _costs(graph, grown))


@FEW
@given(plans(biases=True, adapters=True), st.data())
def test_monotone_in_layers(case: tuple[LayerGraph, UpdatePlan], data: st.DataObject) -> None:
    graph, plan = case
    dropped = data.draw(st.integers(0, len(plan.updates) - 1))
    fewer = replace(plan, updates=plan.updates[:dropped] + plan.updates[dropped + 1 :])
    # the paper's chain leaves biases out, unless nothing else changes: then it is longer than with a late weight
    assume(fewer.updates or fewer.adapters or not (plan.bias_layers or plan.scale_layers))
    _none_less(_costs(graph, fewer), _costs(graph, plan))


@FEW
@given(plans(biases=True, adapters=True), st.data())
def test_monotone_in_adapters_and_biases(case: tuple[LayerGraph, UpdatePlan], data: st.DataObject) -> None:
    graph, plan = case
    key = data.draw(st.sampled_from(["bias_layers", "scale_layers", "adapters"]))
    kept = data.draw(st.integers(0, len(getattr(plan, key))))
    _none_less(_costs(graph, replace(plan, **{key: getattr(plan, key)[:kept]})), _costs(graph, plan))


@pytest.mark.slow
@FEW
@given(plans(biases=True, adapters=True), st.integers(1, 64), st.integers(0, 64))
def test_monotone_in_batch(case: tuple[LayerGraph, UpdatePlan], batch: int, extra: int) -> None:
    graph, plan = case
    _none_less(_costs(graph, plan, batch=batch), _costs(graph, plan, batch=batch + extra))
    assert full_memory(graph, batch=batch).total_bytes <= full_memory(graph, batch=batch + extra).total_bytes


@pytest.mark.slow
@FEW
@given(plans(), st.integers(16, 256), st.integers(0, 128))
def test_monotone_in_resolution(case: tuple[LayerGraph, UpdatePlan], low: int, extra: int) -> None:
    graph, plan = case
    small, large = layer_graph(graph.name, low), layer_graph(graph.name, low + extra)
    _none_less(_costs(small, plan), _costs(large, plan))


@FEW
@given(plans(), st.integers(1, 8))
def test_saved_exact_is_at_most_the_papers_upper_bound(case: tuple[LayerGraph, UpdatePlan], batch: int) -> None:
    """Holds for plans without scale updates and without a bias before the first updated weight."""
    graph, plan = case
    late_biases = replace(plan, bias_layers=tuple(range(plan.updates[0].layer, len(graph.layers))))
    bound = paper_memory(graph, late_biases, batch=batch).saved_activation_bytes
    assert saved_exact_bytes(graph, late_biases, batch=batch) <= bound


@FEW
@given(plans(backbones=("mcunet",), adapters=True), st.integers(128, 512), st.integers(0, 128))
def test_adapters_are_monotone_in_resolution(case: tuple[LayerGraph, UpdatePlan], low: int, extra: int) -> None:
    """From 128 pixels on: below, a map of 3 pixels is not pooled and one of 4 is, by the modules' definition."""
    graph, plan = case
    _none_less(_costs(layer_graph(graph.name, low), plan), _costs(layer_graph(graph.name, low + extra), plan))


@FEW
@given(st.sampled_from(BACKBONES), st.integers(16, 256), st.integers(0, 128), st.integers(0, 5))
def test_the_fisher_pass_is_monotone(backbone: str, low: int, extra: int, blocks: int) -> None:
    small, large = layer_graph(backbone, low), layer_graph(backbone, low + extra)
    empty = UpdatePlan(backbone=backbone)
    for more in (0, 1):
        few, many = small.last_blocks(blocks), large.last_blocks(blocks + more)
        assert fisher_macs(small, few) <= fisher_macs(large, many)
        first, second = (lifetime_memory(g, empty, inspected=i) for g, i in ((small, few), (large, many)))
        assert first.fisher_bytes <= second.fisher_bytes


@FEW
@given(
    plans(biases=True, adapters=True), st.sampled_from(PROFILES), st.sampled_from(["adam", "sgd"]),
    st.integers(2, 40), st.integers(0, 6), st.integers(64, 2000),
)  # fmt: skip
def test_the_memory_budget_inverts_the_rule_that_decides_fits(
    case: tuple[LayerGraph, UpdatePlan], profile: object, optimizer: str, way: int, blocks: int, ram_kib: int
) -> None:
    """A plan within the budget fits, one above it does not certainly fit: whatever the RAM, the task, the device."""
    graph, plan = case
    found = next(p for p in PROFILES if p is profile)
    inspected = graph.last_blocks(blocks)
    small = found.device_class == "microcontroller"
    device = found.model_copy(update={"flash_bytes": None, **({"ram_bytes": 1024 * ram_kib} if small else {})})
    needed = plan_memory_bytes(graph, plan, device, optimizer=optimizer, way=way, inspected=inspected)
    work = Workload(support_size=5, iterations=1, optimizer=optimizer, way=way, inspected=inspected)
    priced = price(graph, plan, device, work)
    assert (needed <= free_bytes(graph, device)) == (priced.fits == "yes")
    assert (needed <= device_budget(graph, device).memory_bytes) == (priced.fits == "yes")
    sure, at_most = limit_bytes(device, "ram_bytes")
    assert (priced.peak_high_bytes <= sure) == (priced.fits == "yes")
    assert (priced.peak_low_bytes > at_most) == (priced.fits == "no")


@FEW
@given(st.sampled_from(BACKBONES), st.data())
def test_no_plan_costs_more_macs_than_full_train(backbone: str, data: st.DataObject) -> None:
    graph = layer_graph(backbone)
    start = data.draw(st.integers(0, len(graph.layers) - 1))
    assert plan_macs(graph, from_layer(graph, start)).backward <= 2 * graph.forward_macs
