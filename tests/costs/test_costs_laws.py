"""Laws of the cost model: more of anything never costs less."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from paper_tables import from_layer

from tinytrain_dist.costs.counters import full_memory, paper_memory
from tinytrain_dist.costs.fit import device_budget, free_bytes, plan_memory_bytes
from tinytrain_dist.costs.latency import image_pass
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.costs.microcontroller_counter import microcontroller_memory
from tinytrain_dist.costs.pricing import Workload, price
from tinytrain_dist.costs.profile_files import load_profile, profile_names
from tinytrain_dist.costs.saved_exact import saved_exact_bytes
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, side_channels

BACKBONES = ("mcunet", "mobilenet_v2", "proxylessnas")
PROFILES = tuple(load_profile(name) for name in profile_names())
F746 = load_profile("stm32f746")
FEW = settings(max_examples=60, deadline=None)


@st.composite
def layer_updates(draw: st.DrawFn, graph: LayerGraph) -> tuple[LayerUpdate, ...]:
    chosen = draw(st.sets(st.integers(0, len(graph.layers) - 1), min_size=1, max_size=6))
    updates = []
    for index in sorted(chosen):
        side = draw(st.sampled_from(["output", "input"]))
        limit = side_channels(graph.layer(index), side)
        updates.append(LayerUpdate(layer=index, channels=tuple(range(draw(st.integers(1, limit)))), side=side))
    return tuple(updates)


@st.composite
def plans(draw: st.DrawFn) -> tuple[LayerGraph, UpdatePlan]:
    graph = layer_graph(draw(st.sampled_from(BACKBONES)))
    return graph, UpdatePlan(backbone=graph.name, updates=draw(layer_updates(graph)))


def _costs(graph: LayerGraph, plan: UpdatePlan, *, batch: int = 1) -> list[float]:
    macs = plan_macs(graph, plan)
    return [
        paper_memory(graph, plan, batch=batch).total_bytes,
        paper_memory(graph, plan, batch=batch, bytes_per_element=1).total_bytes,
        saved_exact_bytes(graph, plan, batch=batch),
        microcontroller_memory(graph, plan).total_bytes,
        macs.forward,
        macs.input_grad,
        macs.weight_grad,
        image_pass(graph, plan, F746).total_ms,
    ]


def _none_less(smaller: list[float], larger: list[float]) -> None:
    assert all(b >= a or abs(b - a) <= 1e-9 * abs(a) for a, b in zip(smaller, larger, strict=True)), (smaller, larger)


@FEW
@given(plans(), st.data())
def test_monotone_in_channels(case: tuple[LayerGraph, UpdatePlan], data: st.DataObject) -> None:
    graph, plan = case
    position = data.draw(st.integers(0, len(plan.updates) - 1))
    update = plan.updates[position]
    limit = side_channels(graph.layer(update.layer), update.side)
    more = replace(update, channels=tuple(range(data.draw(st.integers(len(update.channels or ()), limit)))))
    grown = replace(plan, updates=(*plan.updates[:position], more, *plan.updates[position + 1 :]))
    _none_less(_costs(graph, plan), _costs(graph, grown))


@FEW
@given(plans(), st.data())
def test_monotone_in_layers(case: tuple[LayerGraph, UpdatePlan], data: st.DataObject) -> None:
    graph, plan = case
    dropped = data.draw(st.integers(0, len(plan.updates) - 1))
    fewer = replace(plan, updates=plan.updates[:dropped] + plan.updates[dropped + 1 :])
    _none_less(_costs(graph, fewer), _costs(graph, plan))


@FEW
@given(plans(), st.integers(1, 64), st.integers(0, 64))
def test_monotone_in_batch(case: tuple[LayerGraph, UpdatePlan], batch: int, extra: int) -> None:
    graph, plan = case
    _none_less(_costs(graph, plan, batch=batch), _costs(graph, plan, batch=batch + extra))
    assert full_memory(graph, batch=batch).total_bytes <= full_memory(graph, batch=batch + extra).total_bytes


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
@given(plans(), st.sampled_from(PROFILES), st.sampled_from(["adam", "sgd"]))
def test_the_memory_budget_inverts_the_rule_that_decides_fits(
    case: tuple[LayerGraph, UpdatePlan], profile: object, optimizer: str
) -> None:
    graph, plan = case
    device = next(p for p in PROFILES if p is profile)
    needed = plan_memory_bytes(graph, plan, device, optimizer=optimizer)
    priced = price(graph, plan, device, Workload(support_size=5, iterations=1, optimizer=optimizer))
    assert priced.ram_margin_bytes == free_bytes(graph, device) - needed
    assert (needed <= device_budget(graph, device).memory_bytes) == (priced.ram_margin_bytes >= 0)


@FEW
@given(st.sampled_from(BACKBONES), st.data())
def test_no_plan_costs_more_macs_than_full_train(backbone: str, data: st.DataObject) -> None:
    graph = layer_graph(backbone)
    start = data.draw(st.integers(0, len(graph.layers) - 1))
    assert plan_macs(graph, from_layer(graph, start)).backward <= 2 * graph.forward_macs
