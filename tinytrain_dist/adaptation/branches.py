"""``Branches``: the lite residual modules of a plan (TinyTL, Cai et al., NeurIPS 2020) beside a frozen backbone.

A module's normalisations take their statistics once, from the support images before the first step, and keep
them: its scale starts at 0, so every module then sees what the frozen backbone makes, and a step of one image is
the same as a step of many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrain_dist.backbones.network import NORM_EPS
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.graphs.adapters import LiteResidual, lite_residuals
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan

NAMES = ("group_weight", "group_scale", "group_shift", "point_weight", "point_scale", "point_shift")


@dataclass
class _Statistics:
    """Mean and standard deviation per channel of the two normalisations."""

    means: list[Tensor]
    deviations: list[Tensor]


class Branches:
    """The modules of a plan's ``adapters``, by the layer to whose output each is added.

    Attributes
    ----------
    opens
        First layer of a module's block -> the layer to whose output the module is added.
    """

    def __init__(self, graph: LayerGraph, plan: UpdatePlan) -> None:
        self._modules = {module.layer: module for module in lite_residuals(graph, plan.adapters)}
        self.opens = {graph.block_layers(m.block)[0].index: layer for layer, m in self._modules.items()}
        self._statistics: dict[int, _Statistics] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(self._modules)

    def __contains__(self, layer: int) -> bool:
        return layer in self._modules

    def initial(self, layer: int, *, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the module's parameters before training, by name; a function of the layer alone."""
        module = self._modules[layer]
        group, point = module.convolutions
        tensors = {
            "group_weight": _kaiming(
                "group", layer, (group.out_channels, group.channels_per_group, *[group.kernel] * 2)
            ),
            "group_scale": torch.ones(group.out_channels),
            "group_shift": torch.zeros(group.out_channels),
            "point_weight": _kaiming("point", layer, (point.out_channels, point.in_channels, 1, 1)),
            "point_scale": torch.zeros(point.out_channels),
            "point_shift": torch.zeros(point.out_channels),
        }
        return {name: tensors[name].to(dtype) for name in NAMES}

    @torch.no_grad()
    def measure(self, layer: int, parameters: Mapping[str, Tensor], x: Tensor) -> None:
        """Fix the module's normalisation statistics to those of the block inputs ``x`` ``[N, C, H, W]``."""
        statistics = _Statistics([], [])
        self._statistics[layer] = statistics
        self._run(self._modules[layer], parameters, x, statistics, measuring=True)

    def apply(self, layer: int, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return what the module adds to its block's output ``[N, out, H', W']``, from the block's input."""
        return self._run(self._modules[layer], parameters, x, self._statistics[layer], measuring=False)

    def _run(
        self, module: LiteResidual, p: Mapping[str, Tensor], x: Tensor, statistics: _Statistics, *, measuring: bool
    ) -> Tensor:
        pooled = F.avg_pool2d(x, module.pooling) if module.pooling > 1 else x
        padding = (module.kernel - 1) // 2
        y = F.conv2d(pooled, p["group_weight"], stride=module.stride, padding=padding, groups=module.groups)
        y = F.relu(_normalise(y, statistics, 0, p["group_scale"], p["group_shift"], measuring=measuring))
        y = F.conv2d(y, p["point_weight"])
        y = _normalise(y, statistics, 1, p["point_scale"], p["point_shift"], measuring=measuring)
        if y.shape[2] == module.out_size:
            return y
        return F.interpolate(y, size=(module.out_size, module.out_size), mode="bilinear", align_corners=False)


def _normalise(
    y: Tensor, statistics: _Statistics, index: int, scale: Tensor, shift: Tensor, *, measuring: bool
) -> Tensor:
    if measuring:
        statistics.means.append(y.mean(dim=(0, 2, 3)))
        statistics.deviations.append(torch.sqrt(y.var(dim=(0, 2, 3), unbiased=False) + NORM_EPS))
    factor = scale / statistics.deviations[index]
    offset = shift - statistics.means[index] * factor
    return y * factor[:, None, None] + offset[:, None, None]


def _kaiming(part: str, layer: int, shape: Sequence[int]) -> Tensor:
    """Return He-normal weights by fan-out, drawn for this module alone."""
    deviation = math.sqrt(2.0 / (shape[0] * math.prod(shape[2:])))
    return torch.from_numpy(generator_of("lite residual", part, layer).standard_normal(tuple(shape)) * deviation)
