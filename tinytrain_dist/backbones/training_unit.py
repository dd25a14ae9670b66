"""Convolution, batch normalisation by the batch's own statistics and ReLU6 as one differentiable step.

What PyTorch computes, with the gradients of ``kernels`` and the compiled loops of ``norm_loops``: the activation is
written once instead of three times. Only for float32 in channels_last on the CPU; everything else takes the layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrain_dist.backbones import norm_loops
from tinytrain_dist.backbones.compiled import is_compiled
from tinytrain_dist.backbones.kernels import input_gradient, weight_gradient
from tinytrain_dist.foundation.compiling import compiled
from tinytrain_dist.graphs.layer_graph import ConvLayer

Column = npt.NDArray[np.float32]


def takes(x: Tensor) -> bool:
    """Return whether ``train_unit`` is made for tensors such as ``x``, in the precision that is asked for."""
    if torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return False
    return is_compiled(x) and x.is_contiguous(memory_format=torch.channels_last)


def train_unit(x: Tensor, *, conv: nn.Conv2d, norm: nn.BatchNorm2d, layer: ConvLayer) -> Tensor:
    """Return the unit's activation ``[N, out, H', W']`` in training; running statistics move as in ``BatchNorm2d``."""
    unit: Any = _Unit.apply
    y, mean, variance = unit(x, conv.weight, norm.weight, norm.bias, layer, norm.eps)
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    count = y.numel() // y.shape[1]
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)
    result: Tensor = y
    return result


def _rows(images: Tensor) -> npt.NDArray[np.float32]:
    """Return ``[N, C, H, W]`` (channels_last) as ``[N * H * W, C]`` without copying."""
    rows: npt.NDArray[np.float32] = images.detach().permute(0, 2, 3, 1).reshape(-1, images.shape[1]).numpy()
    return rows


class _Unit(torch.autograd.Function):
    """``relu6(norm(conv(x)))``; saves input, convolution and four numbers per channel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, layer: ConvLayer, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        padding = (layer.kernel - 1) // 2
        z = F.conv2d(x, weight, stride=layer.stride, padding=padding, groups=layer.groups)
        z = z.contiguous(memory_format=torch.channels_last)
        mean, variance = np.zeros(z.shape[1]), np.zeros(z.shape[1])
        compiled(norm_loops.moments)(_rows(z), mean, variance)
        inverse = 1.0 / np.sqrt(variance + eps)
        factor = scale.detach().numpy() * inverse
        offset = shift.detach().numpy() - mean * factor
        columns = factor.astype(np.float32), offset.astype(np.float32)
        y = torch.empty_like(z)
        compiled(norm_loops.scale_and_cap)(_rows(z), *columns, layer.has_activation, _rows(y))
        ctx.layer, ctx.columns, ctx.moments = layer, columns, (mean, inverse)
        ctx.save_for_backward(x, weight, z)
        statistics = torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(variance.astype(np.float32))
        ctx.mark_non_differentiable(*statistics)
        return y, *statistics

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, z = ctx.saved_tensors
        of_z, of_scale, of_shift = _norm_gradient(
            grads[0].contiguous(memory_format=torch.channels_last), z, ctx.columns, ctx.moments, ctx.layer
        )
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = input_gradient(of_z, weight, layer=ctx.layer, in_shape=x.shape)
        return of_x, weight_gradient(of_z, x, layer=ctx.layer), of_scale, of_shift, None, None


def _norm_gradient(
    grad: Tensor, z: Tensor, columns: tuple[Column, Column], moments: tuple[Any, Any], layer: ConvLayer
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the convolution's output, the normalisation's scale and its shift.

    With x^ = (z - mean) / sigma: dz = factor * (g - mean(g) - x^ * mean(g x^)), an affine map of g and z per channel.
    """
    factor, _ = columns
    mean, inverse = moments
    total, product = np.zeros(len(factor)), np.zeros(len(factor))
    shape = _rows(grad), _rows(z), *columns, layer.has_activation
    compiled(norm_loops.gradient_sums)(*shape, total, product)
    of_scale = (product - mean * total) * inverse
    count = len(shape[0])
    slope = -factor * inverse * of_scale / count
    constant = -factor * total / count - slope * mean
    result = torch.empty_like(z)
    compiled(norm_loops.input_gradient)(*shape, slope.astype(np.float32), constant.astype(np.float32), _rows(result))
    return result, torch.from_numpy(of_scale.astype(np.float32)), torch.from_numpy(total.astype(np.float32))
