"""Sparse updates: the slice's gradient is the rows of the dense one, and nothing else ever changes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny_task import GRAPH, plan_of, tiny_backbone, tiny_task
from torch import Tensor

from tinytrain_dist.adaptation import fine_tuning
from tinytrain_dist.adaptation.fine_tuning import fine_tune
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.adaptation.trainable import TrainableLayers
from tinytrain_dist.backbones.folded import FoldedNetwork, pool
from tinytrain_dist.backbones.network import Backbone, LayerState
from tinytrain_dist.graphs.update_plan import LayerUpdate, Side, UpdatePlan, full_plan

EVERY = [layer.index for layer in GRAPH.layers]
STEPS = 6
SETTINGS = FineTuneSettings(iterations=STEPS, learning_rate=5e-3)


def selected(index: int, side: Side) -> tuple[int, ...]:
    layer = GRAPH.layer(index)
    return tuple(range(0, layer.out_channels if side == "output" else layer.in_channels, 2))


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


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize("index", EVERY)
def test_the_slice_gradient_is_the_rows_of_the_dense_gradient(index: int, side: Side) -> None:
    backbone = tiny_backbone()
    task = tiny_task(backbone)
    channels = selected(index, side)
    layers = TrainableLayers(task.network, plan_of(LayerUpdate(layer=index, channels=channels, side=side)))
    images = [task.support_input, task.pseudo_query("finetune", 0)]
    torch.autograd.backward(
        task.loss(*(pool(task.network.run(LayerState(x), replaced=layers.folded())) for x in images))
    )
    torch.autograd.backward(task.loss(*(backbone(x) for x in images)))
    dense = backbone.unit(index).conv.weight.grad
    assert dense is not None and bool((dense != 0).any())
    expected = dense[list(channels)] if side == "output" or dense.shape[1] == 1 else dense[:, list(channels)]
    (leaf,) = layers.leaves()
    assert leaf.grad is not None and leaf.shape == expected.shape
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-9, atol=1e-12)


def dense_reference(task: TargetTask, backbone: Backbone, plan: UpdatePlan) -> tuple[FoldedNetwork, list[float]]:
    """Tune a whole copy of the unfolded backbone, every gradient outside the plan multiplied by zero."""
    own = copy.deepcopy(backbone)
    masks = {own.unit(u.layer).conv.weight: mask_of(u, own.unit(u.layer).conv.weight) for u in plan.updates}
    masks |= {own.unit(i).norm.bias: torch.ones(1).double() for i in plan.bias_layers}
    masks |= {own.unit(i).norm.weight: torch.ones(1).double() for i in plan.scale_layers}
    optimizer = fine_tuning.make_optimizer(list(own.parameters()), task.settings)
    losses = []
    for iteration in range(task.settings.iterations):
        pseudo = task.pseudo_query("finetune", iteration)
        loss = task.loss(own(task.support_input), own(pseudo))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        for parameter in own.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(masks.get(parameter, torch.zeros(1).double()).detach())
        optimizer.step()
        losses.append(float(loss.detach()))
    return FoldedNetwork(own), losses


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
    "everything": full_plan(GRAPH),
}


def tuned(task: TargetTask, plan: UpdatePlan, monkeypatch: pytest.MonkeyPatch) -> tuple[TrainableLayers, list[float]]:
    made: list[TrainableLayers] = []

    def record(network: FoldedNetwork, own: UpdatePlan) -> TrainableLayers:
        made.append(TrainableLayers(network, own))
        return made[0]

    monkeypatch.setattr(fine_tuning, "TrainableLayers", record)
    outcome = fine_tune(task, plan)
    assert outcome.status == "ok"
    return made[0], list(outcome.losses)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", PLANS)
def test_tuning_equals_a_masked_dense_reference(name: str, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FineTuneSettings(iterations=STEPS, learning_rate=5e-3, optimizer=optimizer)  # type: ignore[arg-type]
    backbone = tiny_backbone()
    task = tiny_task(backbone, settings=settings)
    layers, losses = tuned(task, PLANS[name], monkeypatch)
    reference, expected = dense_reference(task, tiny_backbone(), PLANS[name])
    torch.testing.assert_close(losses, expected, rtol=1e-10, atol=1e-10)
    for index, (weight, bias) in layers.folded().items():
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
    layers, _ = tuned(task, plan, monkeypatch)
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())
    for (weight, bias), (old_weight, old_bias) in zip(task.network.layers, frozen, strict=True):
        assert torch.equal(weight, old_weight) and torch.equal(bias, old_bias)
    updates = {u.layer: u for u in plan.updates}
    folded = layers.folded()
    assert set(folded) == {*updates, *plan.bias_layers, *plan.scale_layers}
    for index, (weight, bias) in folded.items():
        if index not in plan.scale_layers:
            outside = mask_of(updates[index], weight) == 0 if index in updates else torch.ones_like(weight) == 1
            assert torch.equal(weight[outside], frozen[index][0][outside])
        if index not in (*plan.bias_layers, *plan.scale_layers):
            assert torch.equal(bias, frozen[index][1])


def test_only_the_selected_weights_are_leaves() -> None:
    network = FoldedNetwork(tiny_backbone())
    plan = plan_of(LayerUpdate(layer=5, channels=(1, 4)), LayerUpdate(layer=8, channels=(7,), side="input"), bias=(9,))
    leaves = TrainableLayers(network, plan).leaves()
    assert [tuple(leaf.shape) for leaf in leaves] == [(2, 24, 1, 1), (12, 1, 1, 1), (20,)]
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in leaves)


def test_untouched_leaves_fold_to_the_frozen_layer() -> None:
    network = FoldedNetwork(tiny_backbone())
    for index, (weight, bias) in TrainableLayers(network, full_plan(GRAPH)).folded().items():
        assert torch.equal(weight, network.layers[index][0])
        assert torch.equal(bias, network.layers[index][1])
        assert F.mse_loss(weight, network.layers[index][0]).requires_grad
