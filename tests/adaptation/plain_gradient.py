"""Gradients by autograd over the whole unfolded backbone: what the hand-written pass must equal."""

import torch
from torch import Tensor

from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.adaptation.prefix_cache import concatenate
from tinytrain_dist.adaptation.sparse_pass import SparsePass, Tape
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.network import Backbone
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan


def selected_rows(weight: Tensor, update: LayerUpdate) -> Tensor:
    """Return the part of a weight or its gradient the update may change, written without the code under test."""
    if update.channels is None:
        return weight
    chosen = list(update.channels)
    return weight[chosen] if update.side == "output" or weight.shape[1] == 1 else weight[:, chosen]


def plain_gradient(backbone: Backbone, task: TargetTask, plan: UpdatePlan, *, iteration: int = 0) -> Tensor:
    """Return the flat gradient: weights by layer, then shifts, then scales."""
    backbone.eval().requires_grad_(True).zero_grad()
    torch.autograd.backward(task.loss(backbone(task.support_input), backbone(task.view(iteration))))
    found = [selected_rows(_grad(backbone.unit(u.layer).conv.weight), u) for u in plan.updates]
    found += [_grad(backbone.unit(i).norm.bias) for i in plan.bias_layers]
    found += [_grad(backbone.unit(i).norm.weight) for i in plan.scale_layers]
    return torch.cat([part.reshape(-1) for part in found])


def sparse_gradient(task: TargetTask, plan: UpdatePlan, *, iteration: int = 0) -> tuple[Tensor, Tape]:
    """Return the flat gradient of the hand-written pass, and what it kept for it."""
    weights = PlanWeights(task.network, plan)
    start = plan.earliest_layer
    assert start is not None
    sparse = SparsePass(task.network, weights=weights, start=start)
    sparse.refresh()
    features, tape = sparse.forward(concatenate([task.support_state(start), task.pseudo_state(iteration, start)]))
    leaf = features.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(*torch.tensor_split(leaf, 2)), leaf)
    return sparse.backward(tape, gradient), tape


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
