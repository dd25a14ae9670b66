"""Equality with the obvious way (``benchmarks/plain_adaptation.py``): same task, plan and random numbers."""

import sys

import numpy as np
import pytest
import torch
from tiny_task import GRAPH, plan_of, tiny_backbone, tiny_episode, tiny_task

from benchmarks.adaptation_measures import float64_verdict, mean_accuracies
from benchmarks.plain_adaptation import plain_fine_tune, plain_fisher
from tinytrain_dist.adaptation.fine_tuning import fine_tune
from tinytrain_dist.adaptation.fisher import fisher_information
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones import kernels
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.foundation.compiling import forget_compiler
from tinytrain_dist.graphs.adapters import adapter_plan
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, Side, UpdatePlan, full_plan, side_channels

EVERY = tuple(layer.index for layer in GRAPH.layers)
FORTY = FineTuneSettings(iterations=40)
PLANS = {
    "last layer": plan_of(LayerUpdate(layer=9)),
    "halves of every kind": plan_of(
        *(LayerUpdate(layer=i, channels=tuple(range(0, GRAPH.layer(i).out_channels, 2))) for i in EVERY)
    ),
    "input channels and biases": plan_of(
        LayerUpdate(layer=3, channels=(0, 5), side="input"),
        LayerUpdate(layer=8, channels=(7, 8), side="input"),
        bias=(4, 5, 6, 7, 8, 9),
    ),
    "lite residual modules": adapter_plan(GRAPH),
    "the last lite residual module": adapter_plan(GRAPH, dropped_share=0.75),
    "full_train": full_plan(GRAPH),
}


@pytest.mark.parametrize(
    "name, mode",
    [
        *(pytest.param(name, "reference", marks=pytest.mark.slow) for name in PLANS if name != "halves of every kind"),
        ("halves of every kind", "reference"),
        ("halves of every kind", "fast"),
    ],
)
@pytest.mark.slow
def test_forty_steps_of_adam_in_float64(name: str, mode: str) -> None:
    settings = FineTuneSettings(iterations=40, mode=mode)  # type: ignore[arg-type]
    backbone = tiny_backbone()
    task = tiny_task(backbone, settings=settings)
    plain, ours = plain_fine_tune(tiny_backbone(), task, PLANS[name]), fine_tune(task, PLANS[name])
    assert len(ours.losses) == 40 and ours.losses[-1] < ours.losses[0]
    np.testing.assert_allclose(ours.losses, plain.losses, rtol=0, atol=1e-10)
    assert ours.accuracy_after == plain.accuracy_after


def five_layers(graph: LayerGraph) -> UpdatePlan:
    """Return half the channels of a layer of each kind on the one side or the other, and the last biases."""
    sides: dict[int, Side] = {24: "output", 28: "output", 31: "output", 34: "input", 39: "input"}
    updates = (
        LayerUpdate(layer=i, channels=tuple(range(0, side_channels(graph.layer(i), side), 2)), side=side)
        for i, side in sides.items()
    )
    return UpdatePlan(backbone=graph.name, updates=tuple(updates), bias_layers=tuple(range(35, 42)))


@pytest.mark.slow
def test_forty_steps_on_mcunet_in_float64() -> None:
    """The network the targets are stated for; all plans with its ImageNet weights: ``benchmarks.adaptation``."""
    graph = layer_graph("mcunet", 32)
    plan, backbone = five_layers(graph), tiny_backbone(graph=graph)
    episode = tiny_episode(shots=(1, 1), queries=2)
    task = TargetTask("mcunet/0", episode=episode, network=FoldedNetwork(backbone), settings=FORTY, scale=10.0)
    plain, ours = plain_fine_tune(backbone, task, plan), fine_tune(task, plan)
    assert len(ours.losses) == 40 and abs(ours.losses[-1] - ours.losses[0]) > 1e-3
    np.testing.assert_allclose(ours.losses, plain.losses, rtol=0, atol=1e-10)
    assert ours.accuracy_after == plain.accuracy_after


@pytest.mark.parametrize("inspected", [EVERY, GRAPH.last_blocks(2)])
def test_fisher_information_in_float64(inspected: tuple[int, ...]) -> None:
    backbone = tiny_backbone()
    task = tiny_task(backbone)
    plain, ours = plain_fisher(backbone, task, inspected), fisher_information(task, inspected)
    for index in inspected:
        np.testing.assert_allclose(ours.channels[index], plain.channels[index], rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("first", [2, 5, 8])  # 2 and 8 are added to their block's input
def test_plain_fisher_information_asks_for_no_gradient_below_the_first_inspected_layer(first: int) -> None:
    backbone = tiny_backbone()
    task, asked = tiny_task(backbone), {}
    for layer in EVERY:
        backbone.unit(layer).register_forward_hook(
            lambda unit, inputs, output, layer=layer: asked.update({layer: output.requires_grad})
        )
    found = plain_fisher(backbone, task, (first, 9))
    assert [layer for layer in EVERY if asked[layer]] == [layer for layer in EVERY if layer > first]
    np.testing.assert_allclose(found.channels[first], fisher_information(task, (first, 9)).channels[first], rtol=1e-10)


@pytest.mark.parametrize(
    ("gap", "same", "verdict"), [(0.0, True, "reached"), (0.0, False, "MISSED"), (1e-9, True, "MISSED")]
)
def test_the_benchmark_takes_another_accuracy_for_a_difference(gap: float, same: bool, verdict: str) -> None:
    assert float64_verdict(gap, same_accuracy=same) == verdict


def test_the_benchmark_compares_accuracies_on_the_plans_both_arms_tuned() -> None:
    a, b, c = ("tinytrain", "a"), ("tinytrain", "b"), ("tiny_tl", "c")
    words = mean_accuracies({a: 0.25, b: 0.75, c: 0.1}, {b: 0.9, a: 0.5})
    assert words == "accuracy 50.00 %, plain's 70.00 % (mean of 2 plans, 3 tuned)"
    assert mean_accuracies({c: 0.1}, {a: 0.5}) == "accuracy: plain tuned none of its plans"


def test_the_plain_arm_leaves_the_backbone_as_it_was() -> None:
    backbone = tiny_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    plain_fine_tune(backbone, tiny_task(backbone), full_plan(GRAPH))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["halves of every kind", "full_train"])
@pytest.mark.parametrize("missing", ["compiler", "fused operator", "both"])
def test_a_tuning_without_the_fast_kernels_is_the_same_but_for_rounding(
    name: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = float32_losses(PLANS[name])
    if missing != "fused operator":
        monkeypatch.setitem(sys.modules, "numba", None)
    if missing != "compiler":
        monkeypatch.setattr(kernels, "_FUSED", None)
    forget_compiler()
    try:
        slow = float32_losses(PLANS[name])
    finally:
        forget_compiler()
    np.testing.assert_allclose(slow, fast, rtol=1e-2, atol=1e-3)


def float32_losses(plan: UpdatePlan) -> tuple[float, ...]:
    """Few steps at a small rate: in float32 the paths of longer tunings part at ReLU6's kinks."""
    settings = FineTuneSettings(iterations=3, learning_rate=1e-4)
    outcome = fine_tune(tiny_task(tiny_backbone(dtype=torch.float32), settings=settings), plan)
    assert outcome.status == "ok"
    return outcome.losses
