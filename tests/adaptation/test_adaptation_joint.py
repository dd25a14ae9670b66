"""Tunings of several tasks made step by step together: each is what it is alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_task import GRAPH, PLANS, plan_of, tiny_backbone, tiny_episode

from tinytrain_dist.adaptation import joint_tuning
from tinytrain_dist.adaptation.fine_tuning import Adaptation, EpisodeObjective, Objective, fine_tune
from tinytrain_dist.adaptation.joint_tuning import fine_tune_together, kind_of
from tinytrain_dist.adaptation.methods.transductive import TransductiveObjective
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan

SETTINGS = FineTuneSettings(iterations=5, learning_rate=1e-2, mode="fast", pool_views=2, curve_every=2)
PLANS_TOGETHER = PLANS | {"biases alone": plan_of(bias=(4, 8))}


def tasks_of(count: int, settings: FineTuneSettings = SETTINGS, dtype: torch.dtype = torch.float64) -> list[TargetTask]:
    """Return tasks with other images, and as many of them, but other shots: their labels differ."""
    network, shots = FoldedNetwork(tiny_backbone(dtype=dtype)), ((3, 2, 2), (2, 3, 2), (2, 2, 3), (1, 5, 1))
    episodes = [tiny_episode(i, shots=shots[i % len(shots)]) for i in range(count)]
    return [
        TargetTask(f"tiny/{i}", episode=episode, network=network, settings=settings, scale=10.0)
        for i, episode in enumerate(episodes)
    ]


def turned(plan: UpdatePlan, by: int) -> UpdatePlan:
    """Return a plan of the same kind that selects other channels."""

    def other(update: LayerUpdate) -> LayerUpdate:
        layer = GRAPH.layer(update.layer)
        count = layer.in_channels if update.side == "input" else layer.out_channels
        kept = update.channels
        return update if kept is None else replace(update, channels=tuple(sorted((c + by) % count for c in kept)))

    return replace(plan, updates=tuple(other(update) for update in plan.updates))


def assert_same(found: Adaptation, wanted: Adaptation, *, digits: float = 1e-10) -> None:
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=digits, atol=digits)
    assert replace(found, losses=()) == replace(wanted, losses=())


@pytest.mark.parametrize(
    ("optimizer", "objective"),
    [
        pytest.param("adam", EpisodeObjective(), id="adam"),
        pytest.param("sgd", EpisodeObjective(), id="sgd", marks=pytest.mark.slow),
        pytest.param("adam", TransductiveObjective(), id="transductive", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", PLANS_TOGETHER)
def test_together_is_what_each_is_alone(name: str, optimizer: str, objective: Objective) -> None:
    settings = replace(SETTINGS, optimizer=optimizer)
    plans = [turned(PLANS_TOGETHER[name], by) for by in range(3)]
    alone = [
        fine_tune(task, plan, objective=objective) for task, plan in zip(tasks_of(3, settings), plans, strict=True)
    ]
    together = fine_tune_together(tasks_of(3, settings), plans, objective=objective)
    assert len({outcome.losses for outcome in alone}) == 3, "three tasks, not one"
    assert [len(outcome.curve) for outcome in together] == [3] * 3
    for found, wanted in zip(together, alone, strict=True):
        assert_same(found, wanted)


def test_float32_runs_the_plain_operations() -> None:
    plans = [turned(PLANS["halves of every kind"], by) for by in range(2)]
    alone = [fine_tune(task, plan) for task, plan in zip(tasks_of(2, dtype=torch.float32), plans, strict=True)]
    together = fine_tune_together(tasks_of(2, dtype=torch.float32), plans, objective=EpisodeObjective())
    for found, wanted in zip(together, alone, strict=True):
        np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-3, atol=1e-3)


def test_a_tuning_that_diverges_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [fine_tune(task, full_plan(GRAPH)) for task in tasks_of(3)]
    tasks = tasks_of(3)
    monkeypatch.setattr(tasks[1], "view", lambda iteration: tasks[1].support_input * float("nan"))
    found = fine_tune_together(tasks, [full_plan(GRAPH)] * 3, objective=EpisodeObjective())
    assert found[1].status == "diverged" and found[1].accuracy_after is None and len(found[1].losses) == 1
    assert_same(found[0], wanted[0])
    assert_same(found[2], wanted[2])


def test_tasks_that_do_not_fit_together_are_tuned_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    plans, sizes = [turned(PLANS["everything"], 0)] * 5, []
    wanted = fine_tune_together(tasks_of(5), plans, objective=EpisodeObjective())
    run = joint_tuning._run

    def watched(tunings: list[joint_tuning.Tuning]) -> list[Adaptation]:
        sizes.append(len(tunings))
        return run(tunings)

    tuning = joint_tuning.Tuning(tasks_of(1)[0], plans[0], EpisodeObjective())
    images = sum(len(state.x) for state in tuning.states(0))
    monkeypatch.setattr(joint_tuning, "_run", watched)
    monkeypatch.setattr(joint_tuning, "JOINT_TAPE_BYTES", 2 * images * tuning.bytes_per_image)
    found = fine_tune_together(tasks_of(5), plans, objective=EpisodeObjective())
    assert sizes == [2, 2, 1]
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)


def test_what_has_to_be_equal() -> None:
    (task,) = tasks_of(1)
    plan = PLANS["halves of every kind"]
    assert kind_of(task, plan) == kind_of(task, turned(plan, 3))
    fewer = replace(plan, updates=(replace(plan.updates[0], channels=(1, 2)), *plan.updates[1:]))
    assert len({kind_of(task, p) for p in (plan, fewer, *PLANS.values())}) == 1 + len(PLANS)
    other = TargetTask(
        "tiny/0", episode=tiny_episode(0, shots=(3, 3, 2)), network=task.network, settings=SETTINGS, scale=10.0
    )  # fmt: skip
    assert kind_of(task, plan) != kind_of(other, plan)
    for change in (
        {"episode": tiny_episode(0, queries=4)},
        {"scale": 5.0},
        {"settings": replace(SETTINGS, iterations=4)},
    ):
        given = {"episode": tiny_episode(0), "network": task.network, "settings": SETTINGS, "scale": 10.0} | change
        assert kind_of(task, plan) != kind_of(TargetTask("tiny/0", **given), plan)
    with pytest.raises(AssertionError, match="another kind"):
        fine_tune_together([task, task], [plan, fewer], objective=EpisodeObjective())
