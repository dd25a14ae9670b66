"""Fine-tuning of one task: cached prefix, same images for all methods, determinism, divergence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_task import GRAPH, plan_of, tiny_backbone, tiny_task
from torch import Tensor

from tinytrain_dist.adaptation import sparse_pass
from tinytrain_dist.adaptation.fine_tuning import EpisodeObjective, fine_tune
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.foundation.errors import PlanError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import ConvLayer
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan

END = len(GRAPH.layers)
LATE = plan_of(LayerUpdate(layer=7, channels=(0, 5)), LayerUpdate(layer=9))


@pytest.mark.parametrize("order", [range(END + 1), range(END, -1, -1), (7, 2, 9, 8, 3, 10)])
def test_a_cached_prefix_equals_recomputation(order: range) -> None:
    task = tiny_task()
    for cut in order:
        for state, images in ((task.support_state(cut), task.support_input), (task.query_state(cut), task.query_input)):
            fresh = task.network.run(LayerState(images), stop=cut)
            assert torch.equal(state.x, fresh.x)
            assert (state.residual is None) == (fresh.residual is None)
            if state.residual is not None and fresh.residual is not None:
                assert torch.equal(state.residual, fresh.residual)


def test_the_outcome_does_not_depend_on_what_is_cached() -> None:
    cold, warm = tiny_task(), tiny_task()
    assert warm.accuracy_before == fine_tune(warm, full_plan(GRAPH)).accuracy_before
    assert fine_tune(warm, LATE) == fine_tune(cold, LATE)


@pytest.mark.parametrize("cut", [1, 2, 4, 7, 9])
def test_nothing_before_the_earliest_update_runs_backward(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    task = tiny_task(backbone, settings=FineTuneSettings(iterations=2))
    passed, updated, forward = (list[int]() for _ in range(3))

    def watched(kernel: Callable[..., Tensor], seen: list[int]) -> Callable[..., Tensor]:
        def run(*tensors: Tensor, layer: ConvLayer, **rest: Any) -> Tensor:
            assert not torch.is_grad_enabled()
            seen.append(layer.index)
            return kernel(*tensors, layer=layer, **rest)

        return run

    monkeypatch.setattr(sparse_pass, "input_gradient", watched(sparse_pass.input_gradient, passed))
    monkeypatch.setattr(sparse_pass, "weight_gradient", watched(sparse_pass.weight_gradient, updated))
    monkeypatch.setattr(sparse_pass, "convolve", watched(sparse_pass.convolve, forward))
    fine_tune(task, plan_of(LayerUpdate(layer=cut, channels=(0,)), *_mix_unless(cut)))
    assert passed == 2 * list(range(END - 1, cut, -1))
    assert updated == 2 * sorted({cut, END - 1}, reverse=True)
    assert min(forward) == cut, "a step passes nothing before the cut forward either"
    assert all(parameter.grad is None for parameter in backbone.parameters())


def _mix_unless(cut: int) -> tuple[LayerUpdate, ...]:
    return () if cut == END - 1 else (LayerUpdate(layer=END - 1),)


def test_the_same_task_twice_gives_the_same_losses() -> None:
    first, second = (fine_tune(tiny_task(), LATE) for _ in range(2))
    assert first == second
    assert len(first.losses) == 4
    assert fine_tune(tiny_task(task_id="tiny/1"), LATE).losses != first.losses


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    first = fine_tune(tiny_task(), LATE)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert fine_tune(tiny_task(), LATE) == first
    assert torch.equal(torch.random.get_rng_state(), before)


def recording(task: TargetTask, calls: list[Tensor]) -> Callable[[int], Tensor]:
    original = task.view

    def view(iteration: int) -> Tensor:
        calls.append(original(iteration))
        return calls[-1]

    return view


def test_every_method_sees_the_same_augmented_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Tensor]] = []
    for plan, rate in ((LATE, 1e-3), (full_plan(GRAPH), 1e-2)):
        task = tiny_task(settings=FineTuneSettings(iterations=3, learning_rate=rate))
        drawn = [task.view(iteration) for iteration in range(3)]
        calls: list[Tensor] = []
        monkeypatch.setattr(task, "view", recording(task, calls))
        fine_tune(task, plan)
        assert all(torch.equal(a, b) for a, b in zip(calls, drawn, strict=True))
        seen.append(calls)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert not torch.equal(seen[0][0], seen[0][1]), "each iteration has its own images"


def test_the_fast_mode_uses_a_pool_of_views_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = tiny_task(settings=FineTuneSettings(iterations=7, mode="fast", pool_views=3))
    views = [fast.view(iteration) for iteration in range(7)]
    assert all(torch.equal(views[i], views[i % 3]) for i in range(7))
    assert all(torch.equal(fast.view(i), tiny_task().view(i)) for i in range(3)), "the first views of the reference"
    calls: list[Tensor] = []
    monkeypatch.setattr(fast, "view", recording(fast, calls))
    outcome = fine_tune(fast, plan_of(LayerUpdate(layer=9)))
    assert (len(outcome.losses), len(calls)) == (7, 3), "the frozen layers see each view once"


def test_a_pool_as_long_as_the_tuning_changes_nothing() -> None:
    fast = tiny_task(settings=FineTuneSettings(iterations=4, mode="fast", pool_views=4))
    assert fine_tune(fast, LATE) == fine_tune(tiny_task(), LATE)


def test_without_augmentation_the_pseudo_query_is_the_support_set() -> None:
    task = tiny_task(settings=FineTuneSettings(augment=False))
    assert torch.equal(task.view(3), task.support_input)
    assert not torch.equal(tiny_task().view(3), task.support_input)


def test_the_curve_ends_at_the_accuracy_after_and_changes_nothing() -> None:
    bare = fine_tune(tiny_task(settings=FineTuneSettings(iterations=5)), LATE)
    outcome = fine_tune(tiny_task(settings=FineTuneSettings(iterations=5, curve_every=2)), LATE)
    assert [point.iteration for point in outcome.curve] == [2, 4, 5]
    assert outcome.curve[-1].accuracy == outcome.accuracy_after == bare.accuracy_after
    assert (outcome.losses, bare.curve) == (bare.losses, ())


def test_the_loss_reaches_the_prototypes() -> None:
    task = tiny_task()
    support, pseudo = (torch.rand(7, 20, dtype=torch.float64, requires_grad=True) for _ in range(2))
    torch.autograd.backward(task.loss(support, pseudo))
    for features in (support, pseudo):
        assert features.grad is not None and bool((features.grad != 0).all())


def test_tuning_lowers_the_loss_and_learns_the_task() -> None:
    settings = FineTuneSettings(iterations=15, learning_rate=1e-2, augment=False)
    outcome = fine_tune(tiny_task(settings=settings), full_plan(GRAPH))
    assert outcome.losses[-1] < outcome.losses[0] / 10
    assert outcome.accuracy_after is not None and outcome.accuracy_after > outcome.accuracy_before
    assert (outcome.status, outcome.message) == ("ok", None)


@pytest.mark.parametrize("iterations, plan", [(0, LATE), (5, plan_of())])
def test_nothing_to_do_leaves_the_accuracy_as_it_was(iterations: int, plan: UpdatePlan) -> None:
    task = tiny_task(settings=FineTuneSettings(iterations=iterations))
    outcome = fine_tune(task, plan)
    assert outcome.accuracy_after == outcome.accuracy_before == task.accuracy_before
    assert (outcome.losses, outcome.status) == ((), "ok")


def test_not_a_number_in_the_gradient_is_a_status_and_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task()
    monkeypatch.setattr(EpisodeObjective, "loss", lambda self, task, features: features[0].sum() * float("nan"))
    outcome = fine_tune(task, LATE)
    assert (outcome.status, outcome.accuracy_after, len(outcome.losses)) == ("diverged", None, 1)
    assert outcome.message is not None and "finetune.learning_rate" in outcome.message


def test_steps_that_explode_are_a_status_and_no_exception() -> None:
    settings = FineTuneSettings(iterations=20, optimizer="sgd", learning_rate=9.9, scale=1e30)
    outcome = fine_tune(tiny_task(tiny_backbone(dtype=torch.float32), settings=settings), full_plan(GRAPH))
    assert (outcome.status, outcome.accuracy_after) == ("diverged", None)
    assert 1 <= len(outcome.losses) < 20, "the first loss was finite, and nothing ran after the last one"
    assert outcome.message is not None and f"iteration {len(outcome.losses)}" in outcome.message


def test_the_last_step_may_diverge_too(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FineTuneSettings(iterations=2)
    task = tiny_task(settings=settings)
    steps = []
    true_step = torch.optim.Adam.step

    def step(self: torch.optim.Adam) -> None:
        steps.append(true_step(self))
        if len(steps) == settings.iterations:
            self.param_groups[0]["params"][0].data.fill_(float("nan"))

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    outcome = fine_tune(task, LATE)
    assert (outcome.status, outcome.accuracy_after, len(outcome.losses)) == ("diverged", None, 2)


def test_the_set_scale_wins_over_the_learned_one() -> None:
    assert tiny_task().scale == 10.0
    assert tiny_task(settings=FineTuneSettings(scale=4.0)).scale == 4.0


def test_a_plan_of_another_backbone_is_refused() -> None:
    with pytest.raises(PlanError, match="'mcunet' used with 'tiny'"):
        fine_tune(tiny_task(), full_plan(layer_graph("mcunet")))
