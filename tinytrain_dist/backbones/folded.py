"""``FoldedNetwork``: a frozen backbone with batch normalisation folded into its convolutions.

In eval mode ``norm(conv(x, w)) = conv(x, w * k) + (shift - mean * k)`` with ``k = scale / sqrt(var + eps)``.
Running the folded form saves a pass over every activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from tinytrain_dist.backbones.kernels import convolve, widened
from tinytrain_dist.backbones.network import NORM_EPS, Backbone, LayerState
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.graphs.layer_graph import LayerGraph

Folded = tuple[Tensor, Tensor]


def fold(weight: Tensor, *, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Folded:
    """Return (weight, bias) of the convolution that equals convolution and normalisation in eval mode."""
    factor = scale / torch.sqrt(variance + NORM_EPS)
    return weight * factor[:, None, None, None], shift - mean * factor


def overflowing(graph: LayerGraph, layers: Sequence[Folded]) -> list[int]:
    """Return the layers whose output may be no number: their weights are not finite, or so large that a sum is not.

    By a bound on every map, images in [-1, 1]: ReLU6 ends at 6, a projection adds up what it reads. A fused ReLU6 makes
    a number of NaN, so the features alone would not show it. The weights are looked at once, however many layers.
    """
    largest = [(w.abs().sum(dim=(1, 2, 3), dtype=torch.float64).max(), b.abs().max().double()) for w, b in layers]
    opens = {graph.block_layers(x.block)[0].index for x in graph.layers if x.residual_after}
    limit, reach, block_input, wrong = torch.finfo(layers[0][0].dtype).max, 1.0, 0.0, []
    for layer, (gain, shift) in zip(graph.layers, torch.stack([torch.stack(x) for x in largest]).tolist(), strict=True):
        block_input = reach if layer.index in opens else block_input
        reach = gain * reach + shift + (block_input if layer.residual_after else 0.0)
        if not reach <= limit:  # NaN too
            wrong.append(layer.index)
            reach = 0.0  # not the fault of the layers above
        reach = min(reach, 6.0) if layer.has_activation else reach
    return wrong


def rounded(folded: Folded) -> Folded:
    """Return (weight, bias) in bfloat16."""
    return folded[0].bfloat16(), folded[1].bfloat16()


class FoldedNetwork:
    """Frozen, folded weights of a backbone, laid out for fast inference.

    Parameters
    ----------
    backbone
        Source of the weights, on the device to run on; it is not changed and not kept in step afterwards. Raises
        ``CheckpointError`` where folded weights are not finite, or overflow.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.graph = backbone.graph
        self.layers: list[Folded] = [self._fold_layer(layer.index) for layer in backbone.graph.layers]
        if wrong := overflowing(self.graph, self.layers):
            names = ", ".join(f"layer {index}" for index in wrong)
            raise CheckpointError(f"{self.graph.name}: folded weights that are not finite, or overflow, in {names}")
        self.opens_residual = {self.graph.block_layers(x.block)[0].index for x in self.graph.layers if x.residual_after}

    @torch.no_grad()
    def _fold_layer(self, index: int) -> Folded:
        unit = self.backbone.unit(index)
        norm = unit.norm
        assert norm.running_mean is not None and norm.running_var is not None
        weight, bias = fold(
            unit.conv.weight, scale=norm.weight, shift=norm.bias, mean=norm.running_mean, variance=norm.running_var
        )
        return weight.contiguous(memory_format=torch.channels_last), bias

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.layers[0][0].dtype

    @property
    def device(self) -> torch.device:
        """Where the weights lie, and everything that is made of them."""
        return self.layers[0][0].device

    @cached_property
    def _rounded(self) -> list[Folded]:
        return [rounded(folded) for folded in self.layers]

    def weights(self, index: int, *, of: torch.dtype) -> Folded:
        """Return the (weight, bias) of a layer for maps of type ``of``: rounded for bfloat16."""
        return (self._rounded if of == torch.bfloat16 else self.layers)[index]

    def run(self, state: LayerState, *, start: int = 0, stop: int | None = None) -> LayerState:
        """Run layers ``start`` to ``stop - 1`` on the state that layer ``start - 1`` left (``Backbone.run``)."""
        x, residual = state
        for layer in self.graph.layers[start : len(self.layers) if stop is None else stop]:
            weight, bias = self.weights(layer.index, of=x.dtype)
            if layer.index in self.opens_residual:
                residual = x
            x = convolve(x, weight, bias, layer=layer, residual=residual if layer.residual_after else None)
            if layer.residual_after:
                residual = None
        return LayerState(x, residual)

    def features(self, images: Tensor) -> Tensor:
        """Return features ``[N, F]`` of network input ``[N, 3, R, R]`` in [-1, 1]."""
        return pool(self.run(LayerState(images)))


def pool(state: LayerState) -> Tensor:
    """Return the global average ``[N, C]`` of the state's map; of a map in bfloat16 as float32."""
    return widened(state.x).mean(dim=(2, 3))
