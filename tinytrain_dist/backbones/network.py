"""``Backbone``: the torch network of a ``LayerGraph``, runnable between any two layers.

Convolution without bias, batch normalisation, ReLU6 except after the linear projection, residual where the
graph says so, global average pooling, no classifier (MobileNetV2, arXiv 1801.04381; ProtoNet head elsewhere).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrain_dist.backbones.training_unit import takes, train_unit
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import RESOLUTION_DEFAULT, ConvLayer, LayerGraph

NORM_EPS = 1e-5

Taps = Callable[[int, Tensor], Tensor]


class LayerState(NamedTuple):
    """What flows from one layer to the next.

    Attributes
    ----------
    x
        Map that the next layer reads, ``[N, C, H, W]``.
    residual
        Input of the block the cut lies in, kept for the projection that adds it; ``None`` where none is pending.
    """

    x: Tensor
    residual: Tensor | None = None


class ConvUnit(nn.Module):
    """Convolution (``conv``), batch normalisation (``norm``) and, except after a projection, ReLU6.

    ``[N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)]``
    """

    def __init__(self, layer: ConvLayer) -> None:
        super().__init__()
        self.layer = layer
        # made on "meta" first: torch's own initialisation would draw from the global random generator
        self.conv = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel, stride=layer.stride,
            padding=(layer.kernel - 1) // 2, groups=layer.groups, bias=False, device="meta",
        ).to_empty(device="cpu")  # fmt: skip
        self.norm = nn.BatchNorm2d(layer.out_channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation after normalisation and ReLU6."""
        if self.training and type(self.norm) is nn.BatchNorm2d and takes(x):
            return train_unit(x, conv=self.conv, norm=self.norm, layer=self.layer)
        out: Tensor = self.norm(self.conv(x))
        return F.relu6(out) if self.layer.has_activation else out


class Backbone(nn.Module):
    """Feature extractor of a layer graph.

    Attributes
    ----------
    graph
        The layer graph it was built from; the module itself takes any resolution.
    units
        One ``ConvUnit`` per layer, in forward order: ``units[i]`` is layer ``i`` of the graph.
    """

    def __init__(self, graph: LayerGraph) -> None:
        super().__init__()
        self.graph = graph
        self.units = nn.ModuleList(ConvUnit(layer) for layer in graph.layers)
        self._opens_residual = _residual_openings(graph)

    def unit(self, index: int) -> ConvUnit:
        """Return the unit of layer ``index``."""
        unit = self.units[index]
        assert isinstance(unit, ConvUnit)
        return unit

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``[N, feature_channels]`` of images ``[N, 3, R, R]`` in [-1, 1]."""
        return self.pool(self.run(LayerState(x), start=0, stop=len(self.units)))

    def run(self, state: LayerState, *, start: int, stop: int, taps: Taps | None = None) -> LayerState:
        """Run layers ``start`` to ``stop - 1`` on the state that layer ``start - 1`` left.

        Parameters
        ----------
        state
            ``LayerState(images)`` for ``start`` 0, else what an earlier ``run`` with ``stop=start`` returned.
        taps
            Called with a layer's index and its activation after normalisation and ReLU6, before the residual
            addition; what it returns takes the activation's place.
        """
        assert 0 <= start <= stop <= len(self.units)
        x, residual = state
        for index in range(start, stop):
            unit = self.unit(index)
            if index in self._opens_residual:
                residual = x
            x = unit(x)
            if taps is not None:
                x = taps(index, x)
            if unit.layer.residual_after:
                assert residual is not None, f"layer {index} adds a block input that the state does not hold"
                x, residual = x + residual, None
        return LayerState(x, residual)

    def pool(self, state: LayerState) -> Tensor:
        """Return the global average ``[N, C]`` of the state's map."""
        return state.x.mean(dim=(2, 3))


def _residual_openings(graph: LayerGraph) -> frozenset[int]:
    """Return the first layer of every block whose input is added to its projection."""
    return frozenset(graph.block_layers(x.block)[0].index for x in graph.layers if x.residual_after)


def build_backbone(graph_or_name: LayerGraph | str, *, resolution: int = RESOLUTION_DEFAULT, seed: int = 0) -> Backbone:
    """Return a freshly initialised backbone in eval mode (float32, CPU).

    Parameters
    ----------
    graph_or_name
        A layer graph, or a registered name (``ConfigError`` with the nearest names if unknown).
    resolution
        Pixels of the graph built from a name; decides the counts in ``graph``, not the weights.
    seed
        Seed of ``init_weights``.
    """
    graph = layer_graph(graph_or_name, resolution) if isinstance(graph_or_name, str) else graph_or_name
    backbone = Backbone(graph)
    init_weights(backbone, seed)
    return backbone.eval()


@torch.no_grad()
def init_weights(backbone: Backbone, seed: int) -> None:
    """Draw every convolution weight anew: He's normal initialisation by fan-out (arXiv 1502.01852).

    A pure function of (seed, layer index, shape): no global generator is read or moved. Normalisation is
    reset to scale 1, shift 0, mean 0, variance 1.
    """
    for index, module in enumerate(backbone.units):
        assert isinstance(module, ConvUnit)
        layer, weight = module.layer, module.conv.weight
        std = math.sqrt(2.0 / (layer.kernel**2 * layer.out_channels / layer.groups))
        draw = generator_of("init_weights", seed, index).standard_normal(tuple(weight.shape)) * std
        weight.copy_(torch.from_numpy(draw))
        module.norm.reset_parameters()
