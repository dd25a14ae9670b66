"""Sparse updates: the slice's gradient is the rows of the dense one, and nothing else ever changes."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_gradient import plain_gradient, sparse_gradient
from tiny_task import GRAPH, plan_of, tiny_backbone, tiny_task
from torch import Tensor

from tinytrain_dist.adaptation import fine_tuning
from tinytrain_dist.adaptation.fine_tuning import fine_tune
from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import Backbone
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, Side, UpdatePlan, full_plan, side_channels

EVERY = [layer.index for layer in GRAPH.layers]
STEPS = 6
SETTINGS = FineTuneSettings(iterations=STEPS, learning_rate=5e-3)


def altered(**layers: dict[str, int]) -> LayerGraph:
    """Return the tiny graph with some layers' fields changed: ``_3={"groups": 2}``."""
    changes = {int(name[1:]): change for name, change in layers.items()}
    rows = tuple(replace(x, **changes.get(x.index, {})) for x in GRAPH.layers)  # type: ignore[arg-type]
    return replace(GRAPH, layers=rows)


GRAPHS = {
    "as built": GRAPH,
    "wide kernels, strided everywhere": altered(
        _3={"kernel": 3, "groups": 4}, _4={"kernel": 7}, _5={"kernel": 3, "groups": 2}, _9={"kernel": 3, "stride": 2}
    ),
    "grouped 1x1, even kernel grids": altered(_3={"groups": 8}, _6={"groups": 2}, _7={"kernel": 5}, _9={"groups": 4}),
}


def selected(index: int, side: Side, *, graph: LayerGraph = GRAPH) -> tuple[int, ...]:
    return tuple(range(0, side_channels(graph.layer(index), side), 2))


def mask_of(update: LayerUpdate, weight: Tensor) -> Tensor:
    """Return 1 where the update may change the weight, written without the code under test."""
    if update.channels is None:
        return torch.ones_like(weight)
    mask = torch.zeros_like(weight)
    depthwise = GRAPH.layer(update.layer).role == "depthwise"
    for channel in update.channels:
        if update.side == "output" or depthwise:
            mask[channel] = 1
        else:
            mask[:, channel] = 1
    return mask


def cases() -> Iterator[tuple[str, int, Side]]:
    """Every layer of every graph, both sides; the input channels of a group are no slice of the weight."""
    for name, graph in GRAPHS.items():
        for layer in graph.layers:
            yield name, layer.index, "output"
            if layer.groups in (1, layer.out_channels):
                yield name, layer.index, "input"


@pytest.mark.parametrize("name, index, side", list(cases()))
def test_the_slice_gradient_is_the_rows_of_the_dense_gradient(name: str, index: int, side: Side) -> None:
    graph = GRAPHS[name]
    backbone = tiny_backbone(graph=graph)
    task = tiny_task(backbone)
    channels = selected(index, side, graph=graph)
    for plan in (
        plan_of(LayerUpdate(layer=index, channels=channels, side=side)),
        plan_of(LayerUpdate(layer=index, channels=channels, side=side), bias=(index,), scale=(index,)),
        plan_of(LayerUpdate(layer=index, side=side)),
    ):
        expected = plain_gradient(backbone, task, plan)
        found, _ = sparse_gradient(task, plan)
        assert bool((expected != 0).any())
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_whole_gradient_is_the_dense_gradient(name: str) -> None:
    backbone = tiny_backbone(graph=GRAPHS[name])
    task = tiny_task(backbone)
    plan = full_plan(GRAPHS[name])
    for iteration in (0, 1):
        expected = plain_gradient(backbone, task, plan, iteration=iteration)
        found, _ = sparse_gradient(task, plan, iteration=iteration)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@st.composite
def tiny_plans(draw: st.DrawFn) -> UpdatePlan:
    """Any plan of the tiny network that changes something."""
    some = st.sets(st.sampled_from(EVERY), max_size=4).map(sorted).map(tuple)
    updates = []
    for index in draw(some):
        side = draw(st.sampled_from(["output", "input"]))
        channels = st.sets(st.integers(0, side_channels(GRAPH.layer(index), side) - 1), min_size=1)
        chosen = draw(st.none() | channels.map(sorted).map(tuple))
        updates.append(LayerUpdate(layer=index, channels=chosen, side=side))
    bias, scale = draw(some), draw(some)
    if not (updates or bias or scale):
        bias = (draw(st.sampled_from(EVERY)),)
    return plan_of(*updates, bias=bias, scale=scale)


@pytest.mark.slow
@given(tiny_plans())
@settings(max_examples=30)
def test_the_gradient_of_any_plan_is_its_share_of_the_dense_gradient(plan: UpdatePlan) -> None:
    backbone = tiny_backbone()
    task = tiny_task(backbone)
    found, _ = sparse_gradient(task, plan)
    torch.testing.assert_close(found, plain_gradient(backbone, task, plan), rtol=1e-9, atol=1e-12)


def dense_reference(task: TargetTask, backbone: Backbone, plan: UpdatePlan) -> tuple[FoldedNetwork, list[float]]:
    """Tune a whole copy of the unfolded backbone, every gradient outside the plan multiplied by zero."""
    own = copy.deepcopy(backbone).requires_grad_(True)
    masks = {own.unit(u.layer).conv.weight: mask_of(u, own.unit(u.layer).conv.weight) for u in plan.updates}
    masks |= {own.unit(i).norm.bias: torch.ones(1).double() for i in plan.bias_layers}
    masks |= {own.unit(i).norm.weight: torch.ones(1).double() for i in plan.scale_layers}
    optimizer = optimizer_of(list(own.parameters()), task.settings)
    losses = []
    for iteration in range(task.settings.iterations):
        loss = task.loss(own(task.support_input), own(task.view(iteration)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        for parameter in own.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(masks.get(parameter, torch.zeros(1).double()).detach())
        optimizer.step()
        losses.append(float(loss.detach()))
    return FoldedNetwork(own), losses


def optimizer_of(parameters: list[torch.nn.Parameter], given: FineTuneSettings) -> torch.optim.Optimizer:
    if given.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=given.learning_rate)
    return torch.optim.SGD(parameters, lr=given.learning_rate, momentum=given.momentum)


PLANS = {
    "every kind, output side": plan_of(*(LayerUpdate(layer=i, channels=selected(i, "output")) for i in EVERY)),
    "every kind, input side": plan_of(
        *(LayerUpdate(layer=i, channels=selected(i, "input"), side="input") for i in EVERY)
    ),
    "inside a residual block": plan_of(LayerUpdate(layer=7, channels=(1, 2, 30)), LayerUpdate(layer=8, channels=(0,))),
    "whole layer and both sides": plan_of(
        LayerUpdate(layer=4), LayerUpdate(layer=5, channels=(3, 4), side="input"), LayerUpdate(layer=9, channels=(19,))
    ),
    "biases before the first weight": plan_of(LayerUpdate(layer=8, channels=(2,)), bias=(4, 6, 8, 9)),
    "scales of updated and of frozen layers": plan_of(LayerUpdate(layer=7, channels=(0, 3)), scale=(5, 7, 9)),
    "everything": full_plan(GRAPH),
}


def tuned(task: TargetTask, plan: UpdatePlan, monkeypatch: pytest.MonkeyPatch) -> tuple[PlanWeights, list[float]]:
    made: list[PlanWeights] = []

    def record(network: FoldedNetwork, own: UpdatePlan) -> PlanWeights:
        made.append(PlanWeights(network, own))
        return made[0]

    monkeypatch.setattr(fine_tuning, "PlanWeights", record)
    outcome = fine_tune(task, plan)
    assert outcome.status == "ok"
    return made[0], list(outcome.losses)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.slow
def test_tuning_equals_a_masked_dense_reference(name: str, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given_settings = FineTuneSettings(iterations=STEPS, learning_rate=5e-3, optimizer=optimizer)  # type: ignore[arg-type]
    backbone = tiny_backbone()
    task = tiny_task(backbone, settings=given_settings)
    weights, losses = tuned(task, PLANS[name], monkeypatch)
    reference, expected = dense_reference(task, tiny_backbone(), PLANS[name])
    torch.testing.assert_close(losses, expected, rtol=1e-10, atol=1e-10)
    for index, (weight, bias) in weights.folded().items():
        torch.testing.assert_close(weight, reference.layers[index][0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(bias, reference.layers[index][1], rtol=1e-10, atol=1e-10)
    assert losses[-1] != losses[0]


@pytest.mark.parametrize("name", PLANS)
def test_what_the_plan_leaves_out_keeps_every_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    task = tiny_task(backbone, settings=SETTINGS)
    plan = PLANS[name]
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    frozen = [(weight.clone(), bias.clone()) for weight, bias in task.network.layers]
    weights, _ = tuned(task, plan, monkeypatch)
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())
    for (weight, bias), (old_weight, old_bias) in zip(task.network.layers, frozen, strict=True):
        assert torch.equal(weight, old_weight) and torch.equal(bias, old_bias)
    updates = {u.layer: u for u in plan.updates}
    folded = weights.folded()
    assert set(folded) == {*updates, *plan.bias_layers, *plan.scale_layers} == set(weights.touched)
    for index, (weight, bias) in folded.items():
        if index not in plan.scale_layers:
            outside = mask_of(updates[index], weight) == 0 if index in updates else torch.ones_like(weight) == 1
            assert torch.equal(weight[outside], frozen[index][0][outside])
        if index not in (*plan.bias_layers, *plan.scale_layers):
            assert torch.equal(bias, frozen[index][1])


def test_the_optimizer_holds_the_selected_weights_and_no_more() -> None:
    task = tiny_task()
    plan = plan_of(LayerUpdate(layer=5, channels=(1, 4)), LayerUpdate(layer=8, channels=(7,), side="input"), bias=(9,))
    values = PlanWeights(task.network, plan).values
    assert values.shape == (2 * 24 + 12 * 1 + 20,)
    optimizer = fine_tuning.make_optimizer(values, task.settings)
    values.grad = torch.ones_like(values)
    optimizer.step()
    (state,) = optimizer.state.values()
    assert state["exp_avg"].shape == state["exp_avg_sq"].shape == values.shape


def test_untouched_values_fold_to_the_frozen_layer() -> None:
    network = FoldedNetwork(tiny_backbone())
    for index, (weight, bias) in PlanWeights(network, full_plan(GRAPH)).folded().items():
        assert torch.equal(weight, network.layers[index][0])
        assert torch.equal(bias, network.layers[index][1])
