"""``TrainableLayers``: the only tensors an update plan changes, as leaves an optimizer can hold."""

from __future__ import annotations

import torch
from torch import Tensor

from tinytrain_dist.backbones.folded import Folded, FoldedNetwork, fold
from tinytrain_dist.graphs.layer_graph import ConvLayer
from tinytrain_dist.graphs.update_plan import LayerUpdate, Side, UpdatePlan


class TrainableLayers:
    """Leaves for the selected channels, shifts and scales of a plan; everything else stays frozen.

    The optimizer's state exists for the selected weights alone.
    """

    def __init__(self, network: FoldedNetwork, plan: UpdatePlan) -> None:
        self._network = network
        self._updates = {u.layer: u for u in plan.updates}
        self._weights = {u.layer: self._slice(u) for u in plan.updates}
        units = {i: network.backbone.unit(i).norm for i in (*plan.bias_layers, *plan.scale_layers)}
        self._shifts = {i: _leaf(units[i].bias) for i in plan.bias_layers}
        self._scales = {i: _leaf(units[i].weight) for i in plan.scale_layers}
        self.touched = tuple(sorted({*self._weights, *self._shifts, *self._scales}))

    def _slice(self, update: LayerUpdate) -> Tensor:
        weight = self._network.backbone.unit(update.layer).conv.weight
        if update.channels is None:
            return _leaf(weight)
        axis = channel_axis(self._network.graph.layer(update.layer), update.side)
        return _leaf(weight.index_select(axis, torch.tensor(update.channels)))

    def leaves(self) -> list[Tensor]:
        """Return every tensor that is updated, in a fixed order."""
        return [*self._weights.values(), *self._shifts.values(), *self._scales.values()]

    def folded(self) -> dict[int, Folded]:
        """Return current (weight, bias) of the touched layers, differentiable with respect to the leaves."""
        return {index: self._fold(index) for index in self.touched}

    def _fold(self, index: int) -> Folded:
        norm = self._network.backbone.unit(index).norm
        assert norm.running_mean is not None and norm.running_var is not None
        scale = self._scales.get(index, norm.weight.detach())
        shift = self._shifts.get(index, norm.bias.detach())
        return fold(self._weight(index), scale=scale, shift=shift, mean=norm.running_mean, variance=norm.running_var)

    def _weight(self, index: int) -> Tensor:
        frozen = self._network.backbone.unit(index).conv.weight.detach()
        if index not in self._weights:
            return frozen
        update = self._updates[index]
        if update.channels is None:
            return self._weights[index]
        axis = channel_axis(self._network.graph.layer(index), update.side)
        return frozen.index_copy(axis, torch.tensor(update.channels), self._weights[index])


def channel_axis(layer: ConvLayer, side: Side) -> int:
    """Return the axis of the weight ``[out, in/groups, k, k]`` the channels of ``side`` count on."""
    return 1 if side == "input" and layer.groups == 1 else 0


def _leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_()
