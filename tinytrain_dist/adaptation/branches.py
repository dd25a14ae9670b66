"""``Branches``: the lite residual modules of a plan (TinyTL, Cai et al., NeurIPS 2020) beside a frozen backbone.

A module's normalisations take their statistics once, from the support images before the first step, and keep
them: its scale starts at 0, so every module then sees what the frozen backbone makes, and a step of one image is
the same as a step of many. The backward pass is written out: it keeps what ``costs.saved_exact`` counts and no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrain_dist.backbones.network import NORM_EPS
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.graphs.adapters import LiteResidual, lite_residuals
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan

NAMES = ("group_weight", "group_scale", "group_shift", "point_weight", "point_scale", "point_shift")


@dataclass
class _Statistics:
    """Mean and standard deviation per channel of the two normalisations."""

    means: list[Tensor]
    deviations: list[Tensor]


@dataclass(frozen=True)
class ModuleTape:
    """What a module keeps for its backward pass.

    Attributes
    ----------
    pooled, active
        Inputs of the two convolutions.
    group, point
        Outputs of the two convolutions, which their normalisations' scales multiply.
    mask
        Where ReLU lets the gradient through, one byte an element.
    """

    pooled: Tensor
    group: Tensor
    active: Tensor
    point: Tensor
    mask: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        """Everything that is kept."""
        return [getattr(self, field.name) for field in fields(self)]


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

    @property
    def statistics(self) -> dict[int, list[list[Tensor]]]:
        """Means and deviations of the two normalisations of every module that was measured, ``[C]`` each."""
        return {layer: [found.means, found.deviations] for layer, found in self._statistics.items()}

    def like(self, statistics: Mapping[int, list[list[Tensor]]]) -> Branches:
        """Return the same modules with the ``statistics`` of another task."""
        other = copy(self)
        other._statistics = {layer: _Statistics(*found) for layer, found in statistics.items()}
        return other

    def initial(self, layer: int, *, dtype: torch.dtype, device: torch.device | None = None) -> dict[str, Tensor]:
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
        return {name: tensors[name].to(device=device, dtype=dtype) for name in NAMES}

    @torch.no_grad()
    def measure(self, layer: int, parameters: Mapping[str, Tensor], x: Tensor) -> None:
        """Fix the module's normalisation statistics to those of the block inputs ``x`` ``[N, C, H, W]``."""
        statistics = _Statistics([], [])
        self._statistics[layer] = statistics
        self._run(self._modules[layer], parameters, x, statistics, measuring=True)

    def apply(self, layer: int, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return what the module adds to its block's output ``[N, out, H', W']``, from the block's input."""
        return self._run(self._modules[layer], parameters, x, self._statistics[layer])

    @torch.no_grad()
    def forward(self, layer: int, parameters: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, ModuleTape]:
        """Return what ``apply`` returns, and what ``backward`` needs of it."""
        kept: list[Tensor] = []
        added = self._run(self._modules[layer], parameters, x, self._statistics[layer], keep=kept.append)
        pooled, group, active, point = kept
        return added, ModuleTape(pooled, group, active, point, active > 0)

    def _run(
        self,
        module: LiteResidual,
        p: Mapping[str, Tensor],
        x: Tensor,
        statistics: _Statistics,
        *,
        measuring: bool = False,
        keep: Callable[[Tensor], None] = lambda tensor: None,
    ) -> Tensor:
        y = F.avg_pool2d(x, module.pooling) if module.pooling > 1 else x
        keep(y)
        padding = (module.kernel - 1) // 2
        y = F.conv2d(y, p["group_weight"], stride=module.stride, padding=padding, groups=module.groups)
        keep(y)
        y = F.relu(_normalise(y, statistics, 0, p["group_scale"], p["group_shift"], measuring=measuring))
        keep(y)
        y = F.conv2d(y, p["point_weight"])
        keep(y)
        y = _normalise(y, statistics, 1, p["point_scale"], p["point_shift"], measuring=measuring)
        if y.shape[2] == module.out_size:
            return y
        return F.interpolate(y, size=(module.out_size, module.out_size), mode="bilinear", align_corners=False)

    @torch.no_grad()
    def backward(
        self, layer: int, parameters: Mapping[str, Tensor], tape: ModuleTape, grad: Tensor, *, passes: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the gradients of the parameters, in the order of ``NAMES``, and that of the block's input.

        Parameters
        ----------
        grad
            dLoss/dOutput of the module, ``[N, out, H', W']``.
        passes
            Whether the gradient of the input is needed; else ``None`` stands in its place.
        """
        module, statistics, p = self._modules[layer], self._statistics[layer], parameters
        group_layer, point_layer = module.convolutions
        if tape.point.shape[2] != module.out_size:
            sizes = [module.out_size] * 2, list(tape.point.shape)
            grad = torch.ops.aten.upsample_bilinear2d_backward(grad, *sizes, False)
        grad, *of_point = _normalise_backward(grad, tape.point, statistics, 1, p["point_scale"])
        grad, point_weight = _convolution_backward(grad, tape.active, p["point_weight"], point_layer, passes=True)
        grad, *of_group = _normalise_backward(grad * tape.mask, tape.group, statistics, 0, p["group_scale"])
        of_input, group_weight = _convolution_backward(grad, tape.pooled, p["group_weight"], group_layer, passes=passes)
        if passes:
            of_input = _unpool(of_input, factor=module.pooling, size=module.in_size)
        return [group_weight, *of_group, point_weight, *of_point], of_input if passes else None


def _normalise(
    y: Tensor, statistics: _Statistics, index: int, scale: Tensor, shift: Tensor, *, measuring: bool
) -> Tensor:
    if measuring:
        statistics.means.append(y.mean(dim=(0, 2, 3)))
        statistics.deviations.append(torch.sqrt(y.var(dim=(0, 2, 3), unbiased=False) + NORM_EPS))
    factor = scale / statistics.deviations[index]
    offset = shift - statistics.means[index] * factor
    return y * factor[:, None, None] + offset[:, None, None]


def _normalise_backward(
    grad: Tensor, y: Tensor, statistics: _Statistics, index: int, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of ``_normalise``'s input, scale and shift."""
    deviation = statistics.deviations[index]
    of_shift = grad.sum(dim=(0, 2, 3))
    of_factor = (grad * y).sum(dim=(0, 2, 3)) - of_shift * statistics.means[index]
    return grad * (scale / deviation)[:, None, None], of_factor / deviation, of_shift


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, layer: ConvLayer, *, passes: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of a convolution's input (undefined unless it ``passes``) and weight."""
    padding, stride = [(layer.kernel - 1) // 2] * 2, [layer.stride] * 2
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], layer.groups, [passes, True, False]
    )
    return of_input, of_weight


def _unpool(grad: Tensor, *, factor: int, size: int) -> Tensor:
    """Return the gradient of average pooling's input, ``size`` pixels wide; pixels it leaves out get 0."""
    if factor == 1:
        return grad
    shape_only = grad.new_empty(1).expand(*grad.shape[:2], size, size)
    passed: Tensor = torch.ops.aten.avg_pool2d_backward(
        grad, shape_only, [factor] * 2, [factor] * 2, [0, 0], False, True, None
    )
    return passed


def _kaiming(part: str, layer: int, shape: Sequence[int]) -> Tensor:
    """Return He-normal weights by fan-out, drawn for this module alone."""
    deviation = math.sqrt(2.0 / (shape[0] * math.prod(shape[2:])))
    return torch.from_numpy(generator_of("lite residual", part, layer).standard_normal(tuple(shape)) * deviation)
