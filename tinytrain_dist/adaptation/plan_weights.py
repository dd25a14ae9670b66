"""``PlanWeights``: the only numbers an update plan changes, in one flat tensor an optimizer holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from tinytrain_dist.adaptation.branches import Branches
from tinytrain_dist.backbones.folded import Folded, FoldedNetwork, fold
from tinytrain_dist.backbones.kernels import is_depthwise
from tinytrain_dist.backbones.layout import channels_last
from tinytrain_dist.backbones.network import NORM_EPS
from tinytrain_dist.graphs.layer_graph import ConvLayer
from tinytrain_dist.graphs.update_plan import LayerUpdate, Side, UpdatePlan


@dataclass(frozen=True)
class _Part:
    """Where one updated tensor lies in the flat one, and its shape."""

    start: int
    shape: torch.Size

    def of(self, flat: Tensor) -> Tensor:
        return flat[self.start : self.start + self.shape.numel()].view(self.shape)


class PlanWeights:
    """Selected weights, shifts and scales of a plan; everything else stays frozen.

    Attributes
    ----------
    values
        Flat tensor of everything that is updated; optimizer state has its size and no more.
    touched
        Layers in which anything is updated, ascending.
    branches
        The plan's lite residual modules.
    """

    def __init__(self, network: FoldedNetwork, plan: UpdatePlan) -> None:
        self._network, self.plan = network, plan
        self._updates = {u.layer: u for u in plan.updates}
        self._selected = {u.layer: _index(u, network.device) for u in plan.updates}
        weights = {u.layer: self._slice(u) for u in plan.updates}
        shifts = {i: network.backbone.unit(i).norm.bias.detach() for i in plan.bias_layers}
        scales = {i: network.backbone.unit(i).norm.weight.detach() for i in plan.scale_layers}
        self.branches = Branches(network.graph, plan)
        modules = {i: self.branches.initial(i, dtype=network.dtype, device=network.device) for i in self.branches}
        of_modules = [tensor for module in modules.values() for tensor in module.values()]
        tensors = [*weights.values(), *shifts.values(), *scales.values(), *of_modules]
        self.values = torch.cat([t.reshape(-1) for t in tensors])
        parts = iter(_parts(tensors))
        self._weights, self._shifts, self._scales = (
            dict(zip(g, parts, strict=False)) for g in (weights, shifts, scales)
        )
        self._modules = {i: dict(zip(module, parts, strict=False)) for i, module in modules.items()}
        self.touched = tuple(sorted({*weights, *shifts, *scales}))

    @property
    def chosen(self) -> dict[int, Tensor]:
        """The selected channels ``[K]`` of every layer of which not all are updated."""
        return {layer: channels for layer, channels in self._selected.items() if channels is not None}

    def like(
        self, values: Tensor, *, chosen: Mapping[int, Tensor], statistics: Mapping[int, list[list[Tensor]]]
    ) -> PlanWeights:
        """Return the weights of another task's plan that selects as many channels of the same layers.

        Parameters
        ----------
        values, chosen
            The other's ``values`` and ``chosen``.
        statistics
            Those of its lite residual modules.
        """
        other = copy(self)
        other.values, other._selected = values, self._selected | dict(chosen)
        other.branches = self.branches.like(statistics)
        return other

    def _slice(self, update: LayerUpdate) -> Tensor:
        weight = self._frozen(update.layer)
        chosen = self._selected[update.layer]
        return weight if chosen is None else weight.index_select(self._axis(update.layer), chosen)

    def _frozen(self, index: int) -> Tensor:
        return self._network.backbone.unit(index).conv.weight.detach()

    def _layer(self, index: int) -> ConvLayer:
        return self._network.graph.layer(index)

    def _axis(self, index: int) -> int:
        return channel_axis(self._layer(index), self._updates[index].side)

    def module(self, layer: int) -> dict[str, Tensor]:
        """Return the current parameters of the lite residual module at ``layer``, by name."""
        return {name: part.of(self.values) for name, part in self._modules[layer].items()}

    def add_module_gradient(self, flat: Tensor, layer: int, gradients: Sequence[Tensor]) -> None:
        """Add the gradients of a module's parameters, in the order of ``module``, to ``flat``."""
        for part, gradient in zip(self._modules[layer].values(), gradients, strict=True):
            part.of(flat).add_(gradient)

    def needs_weight_gradient(self, index: int) -> bool:
        """Return whether the gradient of the layer's folded weight is needed."""
        return index in self._weights or index in self._scales

    def needs_bias_gradient(self, index: int) -> bool:
        """Return whether the gradient of the layer's folded bias is needed."""
        return index in self._shifts or index in self._scales

    def output_channels(self, index: int) -> Tensor | None:
        """Return the output channels whose weight gradient is needed; ``None`` for all."""
        return self._selected[index] if self._is_sliced(index) and self._axis(index) == 0 else None

    def input_channels(self, index: int) -> Tensor | None:
        """Return the input channels the layer's weight gradient reads; ``None`` for all."""
        if not self._is_sliced(index):
            return None
        by_channel = is_depthwise(self._layer(index)) or self._axis(index) == 1
        return self._selected[index] if by_channel else None

    def _is_sliced(self, index: int) -> bool:
        """Return whether the weight gradient is made for the selected channels alone.

        A scale's gradient needs all of it, and groups that are cut unevenly are no convolution.
        """
        layer = self._layer(index)
        is_even = layer.groups == 1 or is_depthwise(layer)
        return index in self._weights and index not in self._scales and is_even

    def folded(self) -> dict[int, Folded]:
        """Return the current (weight, bias) of every touched layer, folded with its normalisation."""
        return {index: self._fold(index) for index in self.touched}

    def _fold(self, index: int) -> Folded:
        norm = self._network.backbone.unit(index).norm
        assert norm.running_mean is not None and norm.running_var is not None
        weight, bias = fold(
            self.weight(index),
            scale=self._value(self._scales, index, norm.weight),
            shift=self._value(self._shifts, index, norm.bias),
            mean=norm.running_mean,
            variance=norm.running_var,
        )
        return channels_last(weight), bias

    def _value(self, parts: dict[int, _Part], index: int, frozen: Tensor) -> Tensor:
        return parts[index].of(self.values) if index in parts else frozen.detach()

    def weight(self, index: int) -> Tensor:
        """Return the layer's whole weight as it is now, ``[out, in/groups, k, k]``."""
        if index not in self._weights:
            return self._frozen(index)
        current, chosen = self._weights[index].of(self.values), self._selected[index]
        return current if chosen is None else self._frozen(index).index_copy(self._axis(index), chosen, current)

    def add_gradient(self, flat: Tensor, index: int, *, weight: Tensor | None, bias: Tensor | None) -> None:
        """Add a layer's gradient to ``flat``, from the gradient of its folded form.

        With ``w' = w k`` and ``b' = shift - mean k``, ``k = scale / sqrt(var + eps)``: dL/dw = dL/dw' k,
        dL/dshift = dL/db', dL/dscale = (sum dL/dw' w - mean dL/db') / sqrt(var + eps).

        Parameters
        ----------
        flat
            Same shape as ``values``.
        weight
            dL/dw' of the selected slice; of the whole weight where the scale is updated (its gradient needs all).
        bias
            dL/db', ``[out]``.
        """
        norm = self._network.backbone.unit(index).norm
        assert norm.running_mean is not None and norm.running_var is not None
        inverse = torch.rsqrt(norm.running_var + NORM_EPS)
        scale = self._value(self._scales, index, norm.weight)
        if index in self._weights:
            assert weight is not None
            self._weights[index].of(flat).add_(self._raw_slice(index, weight, scale * inverse))
        if index in self._shifts:
            assert bias is not None
            self._shifts[index].of(flat).add_(bias)
        if index in self._scales:
            assert bias is not None and weight is not None
            inner = (weight * self.weight(index)).sum(dim=(1, 2, 3))
            self._scales[index].of(flat).add_((inner - norm.running_mean * bias) * inverse)

    def _raw_slice(self, index: int, weight: Tensor, factor: Tensor) -> Tensor:
        """Return the gradient of the selected raw weights from that of the folded slice (or whole) weight."""
        chosen, axis = self._selected[index], self._axis(index)
        if chosen is not None and not self._is_sliced(index):
            weight = weight.index_select(axis, chosen)
        factor = factor if chosen is None or axis == 1 else factor[chosen]
        return weight * factor[:, None, None, None]


def channel_axis(layer: ConvLayer, side: Side) -> int:
    """Return the axis of the weight ``[out, in/groups, k, k]`` the channels of ``side`` count on."""
    assert side == "output" or layer.groups == 1 or is_depthwise(layer), "input channels of a group are no slice"
    return 1 if side == "input" and layer.groups == 1 else 0


def _index(update: LayerUpdate, device: torch.device) -> Tensor | None:
    return None if update.channels is None else torch.tensor(update.channels, device=device)


def _parts(tensors: list[Tensor]) -> list[_Part]:
    parts, start = [], 0
    for tensor in tensors:
        parts.append(_Part(start, tensor.shape))
        start += tensor.numel()
    return parts
