"""``FoldedNetwork``: a frozen backbone with batch normalisation folded into its convolutions.

In eval mode ``norm(conv(x, w)) = conv(x, w * k) + (shift - mean * k)`` with ``k = scale / sqrt(var + eps)``.
Running the folded form saves a pass over every activation; layers that are being updated take their
current weights from the caller.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrain_dist.backbones.network import NORM_EPS, Backbone, LayerState, Taps

Folded = tuple[Tensor, Tensor]


def fold(weight: Tensor, *, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Folded:
    """Return (weight, bias) of the convolution that equals convolution and normalisation in eval mode."""
    factor = scale / torch.sqrt(variance + NORM_EPS)
    return weight * factor[:, None, None, None], shift - mean * factor


class FoldedNetwork:
    """Frozen, folded weights of a backbone, laid out for fast inference.

    Parameters
    ----------
    backbone
        Source of the weights; it is not changed and not kept in step afterwards.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.graph = backbone.graph
        self.layers: list[Folded] = [self._fold_layer(layer.index) for layer in backbone.graph.layers]
        self._opens_residual = {
            self.graph.block_layers(x.block)[0].index for x in self.graph.layers if x.residual_after
        }

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

    def run(
        self,
        state: LayerState,
        *,
        start: int = 0,
        stop: int | None = None,
        replaced: Mapping[int, Folded] | None = None,
        taps: Taps | None = None,
    ) -> LayerState:
        """Run layers ``start`` to ``stop - 1``; layers in ``replaced`` use the given (weight, bias).

        Same meaning of state and taps as ``Backbone.run``.
        """
        x, residual = state
        for layer in self.graph.layers[start : len(self.layers) if stop is None else stop]:
            index = layer.index
            weight, bias = (replaced or {}).get(index) or self.layers[index]
            if index in self._opens_residual:
                residual = x
            padding = (layer.kernel - 1) // 2
            x = F.conv2d(x, weight, bias, stride=layer.stride, padding=padding, groups=layer.groups)
            if layer.has_activation:
                x = F.relu6(x)
            if taps is not None:
                x = taps(index, x)
            if layer.residual_after:
                assert residual is not None, f"layer {index} adds a block input that the state does not hold"
                x, residual = x + residual, None
        return LayerState(x, residual)

    def features(self, images: Tensor, *, replaced: Mapping[int, Folded] | None = None) -> Tensor:
        """Return features ``[N, F]`` of network input ``[N, 3, R, R]`` in [-1, 1]."""
        return pool(self.run(LayerState(images), replaced=replaced))


def pool(state: LayerState) -> Tensor:
    """Return the global average ``[N, C]`` of the state's map."""
    return state.x.mean(dim=(2, 3))


def join(first: LayerState, second: LayerState) -> LayerState:
    """Return both states as one batch."""
    x = torch.cat([first.x, second.x])
    if first.residual is None or second.residual is None:
        return LayerState(x)
    return LayerState(x, torch.cat([first.residual, second.residual]))
