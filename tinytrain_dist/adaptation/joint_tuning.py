"""``fine_tune_together``: the same kind of plan on several tasks, one step of all of them at a time, for a GPU.

One small task cannot fill a GPU: a step is hundreds of kernels, and launching them takes longer than running them.
``torch.vmap`` runs the very step of ``Tuning`` with the task as one more axis. Frozen layers then see the images of all
tasks as one batch; updated layers have weights of their own per task, in grouped convolutions and batched products;
selected channels differ from task to task. What a task computes does not depend on the others but in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tinytrain_dist.adaptation.fine_tuning import Adaptation, Objective, Tuning, fine_tune, make_optimizer, pass_start
from tinytrain_dist.adaptation.prefix_cache import concatenate, fill
from tinytrain_dist.adaptation.sparse_pass import SparsePass
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.graphs.update_plan import UpdatePlan

JOINT_TAPE_BYTES = 2 * 2**30
"""Activations kept for one backward pass of all tasks; of tasks that need more, fewer are tuned together."""


def kind_of(task: TargetTask, plan: UpdatePlan) -> Hashable:
    """Return what has to be equal for two tunings to make their steps together: all but images, labels and channels."""
    updates = tuple((u.layer, u.side, None if u.channels is None else len(u.channels)) for u in plan.updates)
    images = (task.way, len(task.support_labels), len(task.query_labels))
    rest = (id(task.network), task.settings, task.scale)
    return updates, plan.bias_layers, plan.scale_layers, plan.adapters, images, rest


def fine_tune_together(
    tasks: Sequence[TargetTask], plans: Sequence[UpdatePlan], *, objective: Objective
) -> list[Adaptation]:
    """Return what ``fine_tune`` returns for each task and its plan; all are of one ``kind_of``, on one network.

    Tasks whose activations do not fit together are tuned in several groups.
    """
    assert len({kind_of(task, plan) for task, plan in zip(tasks, plans, strict=True)}) == 1, "another kind of plan"
    if plans[0].is_empty or len(tasks) == 1 or tasks[0].settings.iterations == 0:
        return [fine_tune(task, plan, objective=objective) for task, plan in zip(tasks, plans, strict=True)]
    iterations, cut = tasks[0].settings.iterations, pass_start(plans[0], tasks[0].network.graph)
    fill([images for task in tasks for images in task.image_sets(iterations=iterations)], cut)
    tunings = [Tuning(task, plan, objective) for task, plan in zip(tasks, plans, strict=True)]
    num_images = sum(len(state.x) for state in tunings[0].states(0))
    most = max(1, JOINT_TAPE_BYTES // max(1, num_images * tunings[0].bytes_per_image))
    return [outcome for start in range(0, len(tunings), most) for outcome in _run(tunings[start : start + most])]


def _run(tunings: Sequence[Tuning]) -> list[Adaptation]:
    return [tunings[0].run()] if len(tunings) == 1 else JointTuning(tunings).run()


class JointTuning:
    """Several tunings of one kind whose steps are made together.

    Parameters
    ----------
    tunings
        None of them has made a step; their updated values become rows of one tensor ``[tasks, values]``.
    """

    def __init__(self, tunings: Sequence[Tuning]) -> None:
        self._tunings = tunings
        self._values = torch.stack([tuning.weights.values for tuning in tunings])
        for tuning, row in zip(tunings, self._values, strict=True):
            tuning.weights.values = row
        self._fixed = {
            "labels": torch.stack([tuning.task.support_labels for tuning in tunings]),
            "chosen": _stacked([tuning.weights.chosen for tuning in tunings]),
            "statistics": _stacked([tuning.weights.branches.statistics for tuning in tunings]),
        }

    def run(self) -> list[Adaptation]:
        """Make all steps and return the outcomes, in order; one that goes wrong changes nothing for the others."""
        settings = self._tunings[0].task.settings
        optimizer = make_optimizer(self._values, settings)
        for iteration in range(settings.iterations):
            for tuning in self._tunings:
                tuning.record_if_due(iteration)
            losses, self._values.grad = self.step(iteration)
            optimizer.step()
            finite = self._values.isfinite().all(dim=1)
            for tuning, loss, is_finite in zip(self._tunings, losses, finite, strict=True):
                tuning.watch.add(loss, is_finite)
        return [tuning.conclude() for tuning in self._tunings]

    def step(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return the losses ``[tasks]`` and gradients ``[tasks, values]`` of one iteration."""
        sets = [tuning.states(iteration) for tuning in self._tunings]
        images = [concatenate(states) for states in sets]
        given = self._fixed | {"values": self._values.detach(), "x": torch.stack([state.x for state in images])}
        residuals = [state.residual for state in images if state.residual is not None]
        if residuals:
            given["residual"] = torch.stack(residuals)
        found: tuple[Tensor, Tensor] = torch.vmap(self._step_of([len(state.x) for state in sets[0]]))(given)
        return found

    def _step_of(self, sizes: list[int]) -> Callable[[dict[str, Any]], tuple[Tensor, Tensor]]:
        """Return the step of one task, as a function of everything in which tasks differ."""
        first = self._tunings[0]

        def step(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
            head = replace(first.task.head, support_labels=given["labels"])
            weights = first.weights.like(given["values"], chosen=given["chosen"], statistics=given["statistics"])
            run = SparsePass(first.task.network, weights=weights, start=first.cut, stop=first.stop)
            run.refresh()
            features, tape = run.forward(LayerState(given["x"], given.get("residual")))
            gradient, loss = torch.func.grad_and_value(
                lambda of_images: first.objective.loss(head, torch.split(of_images, sizes))
            )(features)
            return loss, run.backward(tape, gradient)

        return step


def _stacked(trees: Sequence[dict[int, Any]]) -> dict[int, Any]:
    """Return dictionaries of tensors (or lists of them) by layer as one, a task axis first."""

    def stack(*parts: Any) -> Any:
        return (
            torch.stack(parts) if isinstance(parts[0], Tensor) else [stack(*each) for each in zip(*parts, strict=True)]
        )

    return {layer: stack(*(tree[layer] for tree in trees)) for layer in trees[0]}
