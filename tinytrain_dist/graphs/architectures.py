"""Architecture tables -> ``LayerGraph``. One CSV per backbone in ``tables/``, one row per block.

Shapes: tables of the TinyTrain paper (arXiv 2307.09988, Table 4) and of the networks' own papers:
MCUNet 5FPS (arXiv 2007.10319), MobileNetV2 (arXiv 1801.04381), ProxylessNAS (arXiv 1812.00332). A teacher of
distillation: EfficientNet-Lite0 (EfficientNet, arXiv 1905.11946, without squeeze-and-excitation, ReLU6).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.foundation.registry import Registry
from tinytrain_dist.graphs.graph_check import check_graph
from tinytrain_dist.graphs.layer_graph import (
    RESOLUTION_DEFAULT,
    ConvLayer,
    LayerGraph,
    Role,
    check_resolution,
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """An inverted residual block: expand 1x1 (absent if ``expand_channels`` equals the input), depthwise, project."""

    expand_channels: int
    kernel: int
    stride: int
    out_channels: int
    residual: bool


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Stem 3x3 stride 2, blocks, optional 1x1 mix layer (``mix_channels`` 0: none)."""

    name: str
    stem_channels: int
    blocks: tuple[Block, ...]
    mix_channels: int = 0

    def graph(self, resolution: int = RESOLUTION_DEFAULT) -> LayerGraph:
        """Return the layer graph at ``resolution`` pixels."""
        return _build(self, check_resolution(resolution))


def _build(architecture: Architecture, resolution: int) -> LayerGraph:
    layers: list[ConvLayer] = []
    channels, size = 3, resolution

    def add(block: int, role: Role, out: int, kernel: int, stride: int, *, residual: bool = False) -> None:
        nonlocal channels, size
        out_size = -(-size // stride)  # odd kernels, padding (k-1)//2
        layers.append(
            ConvLayer(
                index=len(layers), block=block, role=role, in_channels=channels, out_channels=out, kernel=kernel,
                stride=stride, groups=channels if role == "depthwise" else 1, in_size=size, out_size=out_size,
                residual_after=residual,
            )
        )  # fmt: skip
        channels, size = out, out_size

    add(-1, "stem", architecture.stem_channels, 3, 2)
    for number, block in enumerate(architecture.blocks):
        if block.expand_channels != channels:
            add(number, "expand", block.expand_channels, 1, 1)
        add(number, "depthwise", block.expand_channels, block.kernel, block.stride)
        add(number, "project", block.out_channels, 1, 1, residual=block.residual)
    if architecture.mix_channels:
        add(len(architecture.blocks), "mix", architecture.mix_channels, 1, 1)
    return LayerGraph(name=architecture.name, resolution=resolution, layers=tuple(layers))


@cache
def _table(name: str) -> tuple[int, tuple[Block, ...], int]:
    """Read ``tables/NAME.csv``: rows ``stem``, blocks 0.., ``mix``; returns (stem, blocks, mix channels)."""
    text = resources.files("tinytrain_dist.graphs").joinpath("tables", f"{name}.csv").read_text()
    stem = mix = 0
    blocks = []
    for row in csv.DictReader(text.splitlines()):
        if row["block"] == "stem":
            stem = int(row["out_channels"])
        elif row["block"] == "mix":
            mix = int(row["out_channels"])
        else:
            blocks.append(
                Block(
                    expand_channels=int(row["expand_channels"]), kernel=int(row["kernel"]),
                    stride=int(row["stride"]), out_channels=int(row["out_channels"]),
                    residual=row["residual"] == "1",
                )
            )  # fmt: skip
    return stem, tuple(blocks), mix


def _from_table(name: str) -> Architecture:
    stem, blocks, mix = _table(name)
    return Architecture(name=name, stem_channels=stem, blocks=blocks, mix_channels=mix)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor`` without losing more than 10 % (MobileNetV2's rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


# expansion, channels at width 1, repeats, stride of the first (MobileNetV2, Table 2)
_MOBILENET_V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(width: float, *, name: str) -> Architecture:
    """MobileNetV2 of any width; the mix layer is scaled with the width, as in the paper's 0.35 network."""
    channels = stem = make_divisible(32 * width)
    blocks = []
    for expansion, base, repeats, first_stride in _MOBILENET_V2_STAGES:
        out = make_divisible(base * width)
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            blocks.append(
                Block(
                    expand_channels=channels * expansion, kernel=3, stride=stride, out_channels=out,
                    residual=stride == 1 and channels == out,
                )
            )  # fmt: skip
            channels = out
    mix = make_divisible(1280 * width)
    return Architecture(name=name, stem_channels=stem, blocks=tuple(blocks), mix_channels=mix)


_WIDTH = re.compile(r"mobilenet_v2_w(\d+\.\d+|\d+)(_no_mix)?")
_MIN_WIDTH, _MAX_WIDTH = 0.1, 2.0
NO_MIX_SUFFIX = "_no_mix"
EFFICIENTNET_LITE0 = "efficientnet_lite0"

Builder = Callable[[int], LayerGraph]
"""Pixels -> layer graph, called by the name it is registered under."""
BACKBONES: Registry[Builder] = Registry(
    "backbone", package="tinytrain_dist.graphs", modules=lambda: [], entry_point_group="tinytrain_dist.backbones"
)


def _without_mix(found: Architecture) -> Architecture:
    return replace(found, name=found.name + NO_MIX_SUFFIX, mix_channels=0)


def _of_width(name: str) -> Builder | None:
    match = _WIDTH.fullmatch(name)
    if match is None:
        return None
    width = float(match[1])
    if not _MIN_WIDTH <= width <= _MAX_WIDTH:
        raise ConfigError(f"backbone {name!r}: width {width}; allowed {_MIN_WIDTH} to {_MAX_WIDTH}")
    found = mobilenet_v2(width, name=name.removesuffix(NO_MIX_SUFFIX))
    return (_without_mix(found) if match[2] else found).graph


def _teacher(name: str) -> Builder | None:
    return _from_table(name).graph if name == EFFICIENTNET_LITE0 else None


BACKBONES.register("mcunet", lambda resolution: _from_table("mcunet").graph(resolution))
BACKBONES.register("mobilenet_v2", mobilenet_v2(0.35, name="mobilenet_v2").graph)
BACKBONES.register("mobilenet_v2_no_mix", _without_mix(mobilenet_v2(0.35, name="mobilenet_v2")).graph)
BACKBONES.register("proxylessnas", lambda resolution: _from_table("proxylessnas").graph(resolution))
BACKBONES.register(
    "proxylessnas_no_mix", lambda resolution: _without_mix(_from_table("proxylessnas")).graph(resolution)
)
BACKBONES.register_family("mobilenet_v2_w<width>", _of_width)
BACKBONES.register_family(EFFICIENTNET_LITE0, _teacher)


def backbone_names() -> list[str]:
    """Return the backbones for devices, those of other packages last.

    ``mobilenet_v2_w<width>`` and ``efficientnet_lite0`` are understood besides.
    """
    return list(BACKBONES)


@cache
def layer_graph(name: str, resolution: int = RESOLUTION_DEFAULT) -> LayerGraph:
    """Return the layer graph of backbone ``name`` at ``resolution`` pixels.

    Another package offers a ``Builder`` under the entry point ``tinytrain_dist.backbones``; the method ``graph`` of an
    ``Architecture`` is one.

    Raises
    ------
    ConfigError
        An unknown name (the nearest ones are said), pixels that no backbone takes, or a builder whose graph is none.
    """
    build = BACKBONES[name]
    return check_graph(build(check_resolution(resolution)), name=name, resolution=resolution)
