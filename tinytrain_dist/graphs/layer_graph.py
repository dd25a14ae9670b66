"""``LayerGraph``: one row per convolution, with exact weight and MAC counts. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tinytrain_dist.foundation.errors import ConfigError, PlanError
from tinytrain_dist.foundation.hashing import content_hash

Role = Literal["stem", "expand", "depthwise", "project", "mix"]
RESOLUTION_DEFAULT = 128
RESOLUTION_RANGE = (16, 1024)


@dataclass(frozen=True, kw_only=True)
class ConvLayer:
    """One convolution followed by batch normalisation.

    Attributes
    ----------
    index
        Position in forward order, from 0.
    block
        -1 for the stem, 0.. for the blocks, number of blocks for the mix layer.
    in_size, out_size
        Height (= width) of the input and output map, in pixels.
    residual_after
        True where the block's input is added to this layer's normalised output.
    """

    index: int
    block: int
    role: Role
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    in_size: int
    out_size: int
    residual_after: bool

    @property
    def has_activation(self) -> bool:
        """ReLU6 follows every layer except the linear projection (MobileNetV2)."""
        return self.role != "project"

    @property
    def channels_per_group(self) -> int:
        """Input channels that one output channel reads."""
        return self.in_channels // self.groups

    @property
    def weights(self) -> int:
        """Number of weights, without bias or normalisation."""
        return self.out_channels * self.channels_per_group * self.kernel**2

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one image."""
        return self.weights * self.out_size**2

    @property
    def input_elements(self) -> int:
        """Elements of the input map of one image."""
        return self.in_channels * self.in_size**2

    @property
    def output_elements(self) -> int:
        """Elements of the output map of one image."""
        return self.out_channels * self.out_size**2


@dataclass(frozen=True, kw_only=True)
class LayerGraph:
    """All convolutions of a backbone at one input resolution, in forward order.

    Global average pooling follows the last layer; there is no classifier (ProtoNet).
    """

    name: str
    resolution: int
    layers: tuple[ConvLayer, ...]

    @property
    def num_blocks(self) -> int:
        """Number of blocks, the stem and the mix layer not counted."""
        return 1 + max(layer.block for layer in self.layers if layer.role != "mix")

    @property
    def feature_channels(self) -> int:
        """Length of the feature vector."""
        return self.layers[-1].out_channels

    @cached_property
    def weights(self) -> int:
        """Number of convolution weights."""
        return sum(layer.weights for layer in self.layers)

    @cached_property
    def norm_parameters(self) -> int:
        """Scale and shift of every batch normalisation: two per output channel."""
        return sum(2 * layer.out_channels for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Weights plus two normalisation parameters per channel."""
        return self.weights + self.norm_parameters

    @cached_property
    def forward_macs(self) -> int:
        """MACs of one forward pass of one image, convolutions only."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def architecture_hash(self) -> str:
        """Hash of the shapes without the resolution: equal for graphs that take the same weights."""
        shapes = [
            [x.block, x.role, x.in_channels, x.out_channels, x.kernel, x.stride, x.groups, x.residual_after]
            for x in self.layers
        ]
        return content_hash(shapes)

    @cached_property
    def _stable_hash(self) -> int:
        return int(content_hash([self.name, self.resolution, self.architecture_hash]), 16)

    def __hash__(self) -> int:
        """Hash once, and equally in every process: a graph is a key of many caches."""
        return hash(self._stable_hash)

    def block_layers(self, block: int) -> tuple[ConvLayer, ...]:
        """Return the layers of one block."""
        return tuple(layer for layer in self.layers if layer.block == block)

    def last_blocks(self, count: int) -> tuple[int, ...]:
        """Return the layer indices of the last ``count`` blocks and of the mix layer where there is one.

        ``count`` 0 gives the mix layer alone, or nothing.
        """
        if not 0 <= count <= self.num_blocks:
            raise PlanError(f"inspect_blocks {count}: {self.name} has {self.num_blocks} blocks")
        return tuple(x.index for x in self.layers if x.block >= self.num_blocks - count)

    def layer(self, index: int) -> ConvLayer:
        """Return layer ``index``; raises ``PlanError`` when there is none."""
        if not 0 <= index < len(self.layers):
            raise PlanError(f"layer {index}: {self.name} has layers 0 to {len(self.layers) - 1}")
        return self.layers[index]


def check_resolution(resolution: int) -> int:
    """Return ``resolution`` (pixels) if it is one a backbone can take, else raise ``ConfigError``."""
    low, high = RESOLUTION_RANGE
    if not low <= resolution <= high:
        raise ConfigError(f"resolution {resolution}: allowed {low} to {high} pixels")
    return resolution
