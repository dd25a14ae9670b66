"""Fine-tuning of one update plan on one task; the frozen prefix runs once per image and never backward.

The support set decides every step: its images make the prototypes, an augmented copy is the pseudo-query (PMF,
Hu et al., CVPR 2022). Normalisation stays in eval mode. Tasks whose activations exceed a byte budget are
processed in micro-batches whose gradients sum to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from tinytrain_dist.adaptation.micro_batches import TAPE_BYTES, pass_in_parts
from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.adaptation.prefix_cache import concatenate, split
from tinytrain_dist.adaptation.prototype_head import PrototypeHead
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.sparse_pass import SparsePass
from tinytrain_dist.adaptation.step_watch import StepWatch
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.costs.saved_exact import saved_exact_bytes
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan

AdaptationStatus = Literal["ok", "diverged"]
MODULE_FACTOR = 4
"""Room for the maps that pass through a lite residual module besides what it keeps: a bound, held to the memory test.
Another factor would cut other micro-batches, and the last digits of results would differ from those runs hold."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Query accuracy (0 to 1) after so many iterations."""

    iteration: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Outcome of one method on one task.

    Attributes
    ----------
    accuracy_before, accuracy_after
        Share of the query set, 0 to 1; ``accuracy_after`` is ``None`` when the tuning diverged.
    losses
        Loss of every iteration, in nats.
    curve
        Accuracy along the iterations, where it was asked for.
    """

    accuracy_before: float
    accuracy_after: float | None
    losses: tuple[float, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    status: AdaptationStatus = "ok"
    message: str | None = None


class Objective(Protocol):
    """Which images a step passes, and the loss of their features."""

    def states(self, task: TargetTask, *, cut: int, iteration: int) -> list[LayerState]:
        """Return what layer ``cut`` receives for each set of images."""

    def loss(self, head: PrototypeHead, features: Sequence[Tensor]) -> Tensor:
        """Return the loss of the sets' features, ``[N_i, F]`` each; no value may be looked at on the way."""


class EpisodeObjective:
    """Cross-entropy of the pseudo-query against the support prototypes: what every method trains on."""

    def states(self, task: TargetTask, *, cut: int, iteration: int) -> list[LayerState]:
        """Return support and pseudo-query."""
        return [task.support_state(cut), task.pseudo_state(iteration, cut)]

    def loss(self, head: PrototypeHead, features: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy; gradients flow through the prototypes as well."""
        return head.loss(features[0], features[1])


def fine_tune(task: TargetTask, plan: UpdatePlan, *, objective: Objective | None = None) -> Adaptation:
    """Update the plan's weights for the task and return the query accuracy before and after.

    A loss that is not finite ends the tuning with status ``diverged``. Raises ``PlanError`` for a plan of another
    backbone.
    """
    first = plan.check(task.network.graph).earliest_layer
    if first is None or task.settings.iterations == 0:
        return Adaptation(accuracy_before=task.accuracy_before, accuracy_after=task.accuracy_before)
    return Tuning(task, plan, objective or EpisodeObjective()).run()


class Tuning:
    """One tuning: the weights, the pass over the layers above the cut, and what was seen on the way.

    Attributes
    ----------
    weights
        What the optimizer changes.
    cut, stop
        Layer the pass starts at, and the one its backward pass ends at.
    bytes_per_image
        What a step keeps for its backward pass, an image.
    watch
        Losses so far, and whether a number was not finite.
    """

    def __init__(self, task: TargetTask, plan: UpdatePlan, objective: Objective) -> None:
        first = plan.earliest_layer
        assert first is not None
        self.task, self.objective = task, objective
        self.cut, self.stop = pass_start(plan, task.network.graph), first
        self.weights = PlanWeights(task.network, plan)
        self._pass = SparsePass(task.network, weights=self.weights, start=self.cut, stop=first)
        self._pass.measure_branches(task.support_state(self.cut))
        exact = saved_exact_bytes(
            task.network.graph, plan, bytes_per_element=self.weights.values.element_size(), mask_bits=8
        )
        self.bytes_per_image = exact * (MODULE_FACTOR if plan.adapters else 1)
        self.watch = StepWatch(task.network.device)
        self._curve: list[CurvePoint] = []

    def run(self) -> Adaptation:
        """Make all steps and return the outcome."""
        settings, values = self.task.settings, self.weights.values
        optimizer = make_optimizer(values, settings)
        for iteration in range(settings.iterations):
            self.record_if_due(iteration)
            loss, values.grad = self.step(iteration)
            optimizer.step()
            # a fused ReLU6 turns NaN into a number: the loss alone would not show it
            self.watch.add(loss, values.isfinite().all())
            if self.watch.has_failed():
                break
        return self.conclude()

    def record_if_due(self, iteration: int) -> None:
        """Add a point to the learning curve where the settings ask for one now."""
        every = self.task.settings.curve_every
        if every and iteration % every == 0 and iteration > 0 and not self.watch.has_failed(now=True):
            self._pass.refresh()
            accuracy = self._accuracy()
            if accuracy is not None:
                self._curve.append(CurvePoint(iteration=iteration, accuracy=accuracy))

    def conclude(self) -> Adaptation:
        """Return the outcome after the last step, or after the one that went wrong."""
        self._pass.refresh()
        after = None if self.watch.has_failed(now=True) else self._accuracy()
        if after is None:
            return self._diverged()
        settings = self.task.settings
        if settings.curve_every:
            self._curve.append(CurvePoint(iteration=settings.iterations, accuracy=after))
        return self._outcome(accuracy_after=after)

    def states(self, iteration: int) -> list[LayerState]:
        """Return what the pass of an iteration takes, a state for each set of images."""
        return self.objective.states(self.task, cut=self.cut, iteration=iteration)

    def step(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return the loss, ``[]``, and the flat gradient of one iteration; no value is looked at on the way."""
        self._pass.refresh()
        sets = self.states(iteration)
        losses: list[Tensor] = []

        def head(features: Tensor) -> Tensor:
            loss, gradient = self._head(features, sets)
            losses.append(loss)
            return gradient

        images = TAPE_BYTES // max(1, self.bytes_per_image)
        *earlier, total = pass_in_parts(
            self._pass, concatenate(sets), images=images, head=head, backward=self._pass.backward
        )
        for gradient in earlier:
            total += gradient
        return losses[0], total

    def _head(self, features: Tensor, sets: Sequence[LayerState]) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient with respect to the features."""
        leaf = features.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.objective.loss(self.task.head, torch.split(leaf, [len(s.x) for s in sets]))
            (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    def _accuracy(self) -> float | None:
        """Return the query accuracy of the current weights; ``None`` where features are not finite."""
        support, query = (
            torch.cat([self._pass.forward(part, keep=False)[0] for part in split(state, 128)])
            for state in (self.task.support_state(self.cut), self.task.query_state(self.cut))
        )
        if not (support.isfinite().all() and query.isfinite().all()):
            return None
        return self.task.query_accuracy(support, query)

    def _outcome(
        self, *, accuracy_after: float | None, status: AdaptationStatus = "ok", message: str | None = None
    ) -> Adaptation:
        return Adaptation(
            accuracy_before=self.task.accuracy_before,
            accuracy_after=accuracy_after,
            losses=self.watch.losses,
            curve=tuple(self._curve),
            status=status,
            message=message,
        )

    def _diverged(self) -> Adaptation:
        words = f"loss, weights or features not finite after iteration {len(self.watch.losses)}"
        return self._outcome(
            accuracy_after=None, status="diverged", message=f"{words}; try a smaller finetune.learning_rate"
        )


def pass_start(plan: UpdatePlan, graph: LayerGraph) -> int:
    """Return the layer up to which the frozen prefix runs once: a lite residual module needs its block's input."""
    first = plan.earliest_layer
    assert first is not None
    return min([first, *(graph.block_layers(graph.layer(end).block)[0].index for end in plan.adapters)])


def make_optimizer(values: Tensor, settings: FineTuneSettings) -> torch.optim.Optimizer:
    """Return the optimizer over the flat tensor of updated values."""
    if settings.optimizer == "adam":
        return torch.optim.Adam([values], lr=settings.learning_rate, foreach=False)
    return torch.optim.SGD([values], lr=settings.learning_rate, momentum=settings.momentum, foreach=False)
