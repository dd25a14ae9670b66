"""Lite residual modules beside the blocks of a frozen backbone (TinyTL, arXiv 2007.11622): shapes and counts.

A module takes its block's input: average pooling by 2, a group convolution (2 groups, the block's stride),
normalisation, ReLU, a 1x1 convolution, normalisation whose scale starts at 0, bilinear upsampling to the block's
output, to which it is added. Pooling is left out, and the kernel is 1, where the pooled map is a single pixel;
elsewhere the kernel is the largest odd number up to 5 that the pooled map holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tinytrain_dist.foundation.errors import PlanError
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan

MAX_KERNEL = 5
NUM_GROUPS = 2
POOLING = 2


@dataclass(frozen=True, kw_only=True)
class LiteResidual:
    """The module of one block.

    Attributes
    ----------
    layer
        Index of the block's last convolution: the module is added to its output (after the block's own residual).
    width
        Channels between the two convolutions: the block's input channels.
    pooling
        Factor of the average pooling; 1: none.
    in_size, pooled_size, inner_size, out_size
        Height (= width) in pixels of the block's input, after pooling, after the group convolution, of the block's
        output.
    """

    block: int
    layer: int
    in_channels: int
    width: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    pooling: int
    in_size: int
    pooled_size: int
    inner_size: int
    out_size: int

    @property
    def convolutions(self) -> tuple[ConvLayer, ConvLayer]:
        """The group convolution and the 1x1 convolution as layers; their indices are not those of the backbone."""
        first = ConvLayer(
            index=0, block=self.block, role="expand", in_channels=self.in_channels, out_channels=self.width,
            kernel=self.kernel, stride=self.stride, groups=self.groups, in_size=self.pooled_size,
            out_size=self.inner_size, residual_after=False,
        )  # fmt: skip
        second = ConvLayer(
            index=1, block=self.block, role="project", in_channels=self.width, out_channels=self.out_channels,
            kernel=1, stride=1, groups=1, in_size=self.inner_size, out_size=self.inner_size, residual_after=False,
        )  # fmt: skip
        return first, second

    @property
    def weights(self) -> int:
        """Weights of both convolutions."""
        return sum(layer.weights for layer in self.convolutions)

    @property
    def norm_parameters(self) -> int:
        """Scale and shift of both normalisations."""
        return sum(2 * layer.out_channels for layer in self.convolutions)

    @property
    def parameters(self) -> int:
        """Everything that is trained."""
        return self.weights + self.norm_parameters

    @property
    def macs(self) -> int:
        """Forward MACs of one image, convolutions only."""
        return sum(layer.macs for layer in self.convolutions)


def lite_residual(graph: LayerGraph, layer: int) -> LiteResidual:
    """Return the module whose output is added after convolution ``layer``.

    Raises
    ------
    PlanError
        ``layer`` is not the last convolution of a block.
    """
    last = graph.layer(layer)
    if last.role != "project":
        raise PlanError(
            f"plan: adapter at layer {layer}; allowed: the last convolution of a block, {block_ends(graph)}"
        )
    members = graph.block_layers(last.block)
    first, stride = members[0], math.prod(member.stride for member in members)
    pooling = POOLING if first.in_size // POOLING > 1 else 1
    pooled = first.in_size // pooling
    kernel = 1 if pooling == 1 else min(MAX_KERNEL, pooled - (pooled + 1) % 2)
    return LiteResidual(
        block=last.block, layer=layer, in_channels=first.in_channels, width=first.in_channels,
        out_channels=last.out_channels, kernel=kernel, stride=stride,
        groups=NUM_GROUPS if first.in_channels % NUM_GROUPS == 0 else 1, pooling=pooling, in_size=first.in_size,
        pooled_size=pooled, inner_size=-(-pooled // stride), out_size=last.out_size,
    )  # fmt: skip


def block_ends(graph: LayerGraph) -> tuple[int, ...]:
    """Return the index of every block's last convolution."""
    return tuple(layer.index for layer in graph.layers if layer.role == "project")


def lite_residuals(graph: LayerGraph, layers: Iterable[int]) -> tuple[LiteResidual, ...]:
    """Return the modules of ``layers``, as in ``UpdatePlan.adapters``."""
    return tuple(lite_residual(graph, layer) for layer in layers)


def adapter_plan(graph: LayerGraph, *, dropped_share: float = 0.0) -> UpdatePlan:
    """Return the plan that trains a module per block, without the first ``dropped_share`` of them.

    The number dropped is rounded half up (AdapterDrop, arXiv 2010.11918: adapters go from the input side).
    """
    ends = block_ends(graph)
    return UpdatePlan(backbone=graph.name, adapters=ends[math.floor(dropped_share * len(ends) + 0.5) :])
