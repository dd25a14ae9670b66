"""The obvious way to adapt a network to a task, kept to measure the project's way against.

NCHW; the whole network runs forward in every step for support and pseudo-query; autograd runs back to the
earliest updated layer; weight gradients are dense and masked to the selected channels; Adam runs over whole
tensors; normalisation in eval mode. Fisher information and tuning are made again for every device. Same
tasks, plans, random numbers and loss as the project's own arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tinytrain_dist.adaptation.branches import Branches
from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.fisher import FisherInformation
from tinytrain_dist.adaptation.plan_weights import channel_axis
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.network import Backbone, LayerState
from tinytrain_dist.data.transforms import to_unit
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan


def plain_fine_tune(backbone: Backbone, task: TargetTask, plan: UpdatePlan) -> Adaptation:
    """Return the outcome of ``plan``; ``backbone`` is restored afterwards."""
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    masks = _unfreeze(backbone, plan)
    support, losses = _nchw(to_unit(task.support_unit)), []
    with _Modules(backbone, plan, support) as modules:
        parameters = [*(p for p in backbone.parameters() if p.requires_grad), *modules.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=task.settings.learning_rate)
        for iteration in range(task.settings.iterations):
            pseudo = _nchw(task.view(iteration))
            loss = task.loss(modules.features(support), modules.features(pseudo))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for parameter, mask in masks:
                assert parameter.grad is not None
                parameter.grad *= mask
            optimizer.step()
            losses.append(float(loss.detach()))
        with torch.no_grad():
            after = task.query_accuracy(modules.features(support), modules.features(_nchw(task.query_input)))
    backbone.load_state_dict(before)
    backbone.requires_grad_(False)
    return Adaptation(accuracy_before=task.accuracy_before, accuracy_after=after, losses=tuple(losses))


class _Modules:
    """The whole network with the plan's lite residual modules (none for most plans), by hooks on its units."""

    def __init__(self, backbone: Backbone, plan: UpdatePlan, support: Tensor) -> None:
        self._backbone, self._branches = backbone, Branches(backbone.graph, plan)
        self._tensors = {
            i: {name: value.requires_grad_() for name, value in self._branches.initial(i, dtype=support.dtype).items()}
            for i in self._branches
        }
        self._inputs: dict[int, Tensor] = {}
        self._hooks = [
            backbone.unit(first).register_forward_pre_hook(partial(self._keep, layer))
            for first, layer in self._branches.opens.items()
        ]
        with torch.no_grad():
            if self._tensors:
                backbone(support)  # the hooks keep the block inputs of the frozen backbone
            for layer, tensors in self._tensors.items():
                self._branches.measure(layer, tensors, self._inputs[layer])

    def __enter__(self) -> _Modules:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def parameters(self) -> list[Tensor]:
        """Return everything the modules train."""
        return [value for tensors in self._tensors.values() for value in tensors.values()]

    def features(self, images: Tensor) -> Tensor:
        """Return the features ``[N, F]`` of the network with its modules."""
        taps = self._add if self._tensors else None
        state = self._backbone.run(LayerState(images), start=0, stop=len(self._backbone.units), taps=taps)
        return self._backbone.pool(state)

    def _keep(self, layer: int, module: torch.nn.Module, arguments: tuple[Tensor]) -> None:
        self._inputs[layer] = arguments[0]

    def _add(self, index: int, activation: Tensor) -> Tensor:
        if index not in self._tensors:
            return activation
        return activation + self._branches.apply(index, self._tensors[index], self._inputs[index])


def _unfreeze(backbone: Backbone, plan: UpdatePlan) -> list[tuple[torch.nn.Parameter, Tensor]]:
    backbone.eval().requires_grad_(False)
    masks = []
    for update in plan.updates:
        weight = backbone.unit(update.layer).conv.weight.requires_grad_(True)
        if update.channels is not None:
            masks.append((weight, _mask(weight, update, backbone)))
    for index in plan.bias_layers:
        backbone.unit(index).norm.bias.requires_grad_(True)
    for index in plan.scale_layers:
        backbone.unit(index).norm.weight.requires_grad_(True)
    return masks


def _mask(weight: Tensor, update: LayerUpdate, backbone: Backbone) -> Tensor:
    mask = torch.zeros_like(weight)
    axis = channel_axis(backbone.graph.layer(update.layer), update.side)
    assert update.channels is not None
    return mask.index_fill(axis, torch.tensor(update.channels), 1.0)


def plain_fisher(backbone: Backbone, task: TargetTask, inspected: Sequence[int]) -> FisherInformation:
    """Return Delta of the inspected layers by autograd, back to the first of them: nothing below it is asked for."""
    backbone.eval().requires_grad_(False)
    kept: dict[int, Tensor] = {}
    images = torch.cat([_nchw(to_unit(task.support_unit)), _nchw(task.view(0))])

    def tap(index: int, activation: Tensor) -> Tensor:
        if index in wanted:
            activation.requires_grad_().retain_grad()  # nothing below the first one asks for a gradient: it is a leaf
            kept[index] = activation
        return activation

    wanted = frozenset(inspected)
    state = backbone.run(LayerState(images), start=0, stop=len(backbone.units), taps=tap)
    support, query = torch.tensor_split(backbone.pool(state), 2)
    task.loss(support, query).backward()  # type: ignore[no-untyped-call]
    return FisherInformation({index: _delta(a) for index, a in kept.items()})


def _delta(activation: Tensor) -> NDArray[Any]:
    assert activation.grad is not None
    inner = (activation.detach() * activation.grad).sum(dim=(2, 3), dtype=torch.float64)
    delta: NDArray[Any] = (inner.square().mean(dim=0) / 2).numpy()
    return delta


def _nchw(images: Tensor) -> Tensor:
    return images.contiguous()
