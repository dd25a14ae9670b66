"""Fine-tuning of one update plan on one task; the frozen prefix never runs backward.

The support set decides every step: its images make the prototypes, an augmented copy is the
pseudo-query (PMF, Hu et al., CVPR 2022). Normalisation stays in eval mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.adaptation.trainable import TrainableLayers
from tinytrain_dist.backbones.folded import join, pool
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.graphs.update_plan import UpdatePlan

AdaptationStatus = Literal["ok", "diverged"]


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Outcome of one method on one task.

    Attributes
    ----------
    accuracy_before, accuracy_after
        Share of the query set, 0 to 1; ``accuracy_after`` is ``None`` when the tuning diverged.
    losses
        Loss of every iteration, in nats.
    """

    accuracy_before: float
    accuracy_after: float | None
    losses: tuple[float, ...] = ()
    status: AdaptationStatus = "ok"
    message: str | None = None


def fine_tune(task: TargetTask, plan: UpdatePlan) -> Adaptation:
    """Update the plan's weights for the task and return the query accuracy before and after.

    A loss that is not finite ends the tuning with status ``diverged``. Raises ``PlanError`` for a plan of another
    backbone.
    """
    cut = plan.check(task.network.graph).earliest_layer
    if cut is None or task.settings.iterations == 0:
        return Adaptation(accuracy_before=task.accuracy_before, accuracy_after=task.accuracy_before)
    layers = TrainableLayers(task.network, plan)
    optimizer = make_optimizer(layers.leaves(), task.settings)
    losses: list[float] = []
    for iteration in range(task.settings.iterations):
        loss = _step_loss(task, layers, cut, iteration)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            return _diverged(task, losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = _accuracy_after(task, layers, cut)
    if after is None:
        return _diverged(task, losses)
    return Adaptation(accuracy_before=task.accuracy_before, accuracy_after=after, losses=tuple(losses))


def make_optimizer(leaves: list[Tensor], settings: FineTuneSettings) -> torch.optim.Optimizer:
    """Return the optimizer over the updated slices only."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(leaves, lr=settings.learning_rate)
    return torch.optim.SGD(leaves, lr=settings.learning_rate, momentum=settings.momentum)


def _step_loss(task: TargetTask, layers: TrainableLayers, cut: int, iteration: int) -> Tensor:
    with torch.no_grad():
        pseudo = task.network.run(LayerState(task.pseudo_query("finetune", iteration)), stop=cut)
    both = task.network.run(join(task.support_state(cut), pseudo), start=cut, replaced=layers.folded())
    support, query = torch.tensor_split(pool(both), 2)
    return task.loss(support, query)


@torch.no_grad()
def _accuracy_after(task: TargetTask, layers: TrainableLayers, cut: int) -> float | None:
    replaced = layers.folded()
    support, query = (
        pool(task.network.run(state, start=cut, replaced=replaced))
        for state in (task.support_state(cut), task.query_state(cut))
    )
    if not (support.isfinite().all() and query.isfinite().all()):
        return None
    return task.query_accuracy(support, query)


def _diverged(task: TargetTask, losses: list[float]) -> Adaptation:
    return Adaptation(
        accuracy_before=task.accuracy_before,
        accuracy_after=None,
        losses=tuple(losses),
        status="diverged",
        message=f"loss or features not finite after iteration {len(losses)}; try a smaller finetune.learning_rate",
    )
