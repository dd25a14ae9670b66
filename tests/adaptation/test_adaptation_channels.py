"""Channels: their own criterion, a ratio per device or the largest that fits, and the side of the activation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_adaptation_fisher import plain_loss
from test_adaptation_selection import budgets, flat, memory_of, selection_input
from tiny_task import GRAPH, tiny_backbone, tiny_task
from torch import Tensor

from tinytrain_dist.adaptation.channel_criteria import CHANNEL_CRITERIA
from tinytrain_dist.adaptation.fine_tuning import fine_tune
from tinytrain_dist.adaptation.fisher import fisher_information
from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.adaptation.selection import select_plan
from tinytrain_dist.adaptation.settings import STUDIED_RATIOS, FineTuneSettings, SelectionSettings
from tinytrain_dist.backbones.head import EUCLIDEAN_SCALE
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.update_plan import full_plan


@given(budgets, st.sampled_from(["skip", "stop"]), st.sampled_from(["output", "input"]))
def test_auto_is_the_largest_ratio_under_which_the_most_layers_fit(budget: Budget, overflow: str, side: str) -> None:
    chosen = {"budget": budget, "on_overflow": overflow, "side": side}
    by_ratio = {r: select_plan(selection_input(flat(), channel_ratio=r, **chosen)) for r in STUDIED_RATIOS}  # type: ignore[arg-type]
    most = max(len(decision.plan.updates) for decision in by_ratio.values())
    expected = max(r for r, decision in by_ratio.items() if len(decision.plan.updates) == most)
    found = select_plan(selection_input(flat(), channel_ratio="auto", **chosen))  # type: ignore[arg-type]
    assert found.status == by_ratio[expected].status
    assert found.plan == by_ratio[expected].plan


def test_what_fits_at_no_ratio_is_named_at_the_smallest() -> None:
    none = Budget(memory_bytes=1, backward_macs=1)
    found = select_plan(selection_input(flat(), channel_ratio="auto", budget=none))
    assert found == select_plan(selection_input(flat(), channel_ratio=0.125, budget=none))
    assert found.status == "infeasible"


def test_a_device_may_have_a_ratio_of_its_own() -> None:
    given_input = selection_input(flat(), channel_ratio=0.5, device_ratios=(("small", 0.125), ("wide", "auto")))
    counts = {}
    for device in ("small", "other", "wide"):
        plan = select_plan(replace(given_input, device=device)).plan
        counts[device] = [GRAPH.layer(9).out_channels if u.channels is None else len(u.channels) for u in plan.updates]
    assert counts["small"] < counts["other"] < counts["wide"]
    assert counts["small"][-1] == 3 and counts["other"][-1] == 10 and counts["wide"][-1] == 20


def test_channels_go_by_their_own_criterion() -> None:
    deltas = {9: list(range(20, 0, -1))}  # Delta falls, the norms of the test rise

    def channels(criterion: str, task_id: str = "tiny/0") -> tuple[int, ...]:
        chosen = selection_input(deltas, channel_ratio=0.25, channel_criterion=criterion)
        (update,) = select_plan(replace(chosen, task_id=task_id)).plan.updates
        assert update.channels is not None
        return update.channels

    assert channels("fisher") == (0, 1, 2, 3, 4)
    assert channels("l2_norm") == (15, 16, 17, 18, 19)
    draws = {channels("random", f"tiny/{i}") for i in range(5)}
    assert channels("random") in draws and len(draws) > 1, "a function of the task"


def test_an_own_channel_criterion_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    list(CHANNEL_CRITERIA)  # load the built-in ones first
    monkeypatch.setitem(CHANNEL_CRITERIA._items, "every_second", lambda facts: np.arange(facts.num_channels) % 2.0)
    chosen = selection_input({9: [1] * 20}, channel_ratio=0.5, channel_criterion="every_second")
    (update,) = select_plan(chosen).plan.updates
    assert update.channels == tuple(range(1, 20, 2))
    monkeypatch.setitem(CHANNEL_CRITERIA._items, "every_second", lambda facts: facts.delta[:3])
    with pytest.raises(ConfigError, match=r"'every_second': layer 9: returned \(3,\); allowed: .*\(20,\)"):
        select_plan(chosen)
    with pytest.raises(ConfigError, match=r"selection\.channel_criterion.*did you mean 'every_second'"):
        selection_input({9: [1] * 20}, channel_criterion="every_secund")


def test_the_criterion_of_layers_leaves_that_of_channels_alone() -> None:
    plans = [
        select_plan(selection_input(flat(), criterion=name, channel_criterion="l2_norm")).plan
        for name in ("full", "random", "l2_norm")
    ]
    assert plans[0] == plans[1] == plans[2], "everything fits, so only the channels are chosen"
    assert memory_of(plans[0]) > 0


def test_delta_before_the_activation_equals_brute_force() -> None:
    task = tiny_task(tiny_backbone())
    backbone = tiny_backbone()
    kept: dict[int, Tensor] = {}

    def keep(index: int) -> None:
        def hook(module: torch.nn.Module, args: object, output: Tensor) -> None:
            output.retain_grad()
            kept[index] = output

        backbone.unit(index).norm.register_forward_hook(hook)

    for layer in GRAPH.layers:
        keep(layer.index)
    support, pseudo = backbone(torch.cat([task.support_input, task.view(0)])).chunk(2)
    torch.autograd.backward(plain_loss(task, support, pseudo))
    every = tuple(kept)
    before = fisher_information(task, every, point="before_activation")
    after = fisher_information(task, every)
    for index, activation in kept.items():
        assert activation.grad is not None
        expected = (activation.detach() * activation.grad).sum(dim=(2, 3)).square().mean(0).numpy() / 2
        np.testing.assert_allclose(before.channels[index], expected, rtol=1e-8, atol=1e-16)
        if not GRAPH.layer(index).has_activation:
            assert np.array_equal(before.channels[index], after.channels[index])
    assert any(not np.allclose(before.channels[i], after.channels[i]) for i in every), "some position is saturated"


@pytest.mark.slow
def test_the_euclidean_head_is_minus_the_mean_squared_difference() -> None:
    task = tiny_task(settings=FineTuneSettings(distance="euclidean", iterations=8, augment=False))
    features, prototypes = torch.randn(4, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    logits = task.logits(features, prototypes)
    for i in range(4):
        for c in range(3):
            squares = [float(a - b) ** 2 for a, b in zip(features[i], prototypes[c], strict=True)]
            expected = -EUCLIDEAN_SCALE * sum(squares) / 5
            assert float(logits[i, c]) == pytest.approx(expected)
    assert task.scale == 1.0 and tiny_task().scale == 10.0, "the checkpoint's scale is that of its cosine"
    assert tiny_task(settings=FineTuneSettings(distance="euclidean", scale=0.5)).scale == 0.5
    outcome = fine_tune(task, full_plan(GRAPH))
    assert outcome.status == "ok" and outcome.losses[-1] < outcome.losses[0]


@pytest.mark.parametrize(
    "change",
    [{"channel_criterion": "random"}, {"fisher_point": "before_activation"}, {"device_ratios": (("x", 0.25),)}],
)
def test_every_setting_of_the_selection_is_part_of_the_variant(change: dict[str, object]) -> None:
    changed = SelectionSettings(**change)  # type: ignore[arg-type]
    tinytrain, static = METHODS["tinytrain"], METHODS["sparse_update"]
    assert tinytrain.variant_settings(FineTuneSettings(), changed) != tinytrain.variant_settings(
        FineTuneSettings(), SelectionSettings()
    )
    assert static.variant_settings(FineTuneSettings(), changed) == static.variant_settings(
        FineTuneSettings(), SelectionSettings()
    )


def test_the_distance_is_part_of_every_variant_with_a_head() -> None:
    euclidean = FineTuneSettings(distance="euclidean")
    for name in METHODS:
        same = METHODS[name].variant_settings(euclidean, SelectionSettings()) == METHODS[name].variant_settings(
            FineTuneSettings(), SelectionSettings()
        )
        assert same == (name == "raw_pixels")
