"""The convolution and its two gradients, each by the fastest kernel that exists here, chosen by static rules.

Float32 on the CPU runs oneDNN's convolution with ReLU6 or the residual addition fused in (what PyTorch's own
compiler emits), in channels_last; other types and builds run plain operations. 1x1 convolutions take matrix
products for their gradients, stride-1 depthwise ones a convolution with the flipped kernel. The weight gradient
of a wide depthwise kernel and the input gradient of a strided one are compiled loops (``compiled``). Nothing is timed
at run time, so equal machines take equal paths.

Maps in bfloat16 run the same convolutions; only pointwise gradients and those that are convolutions themselves stay in
it. PyTorch's own gradients of a depthwise layer are 20 times slower there, so those run in float32 and are rounded.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrain_dist.backbones.compiled import (
    CAP,
    depthwise_input_gradient,
    depthwise_weight_gradient,
    is_compiled,
)
from tinytrain_dist.backbones.layout import channels_last, is_of_many_tasks
from tinytrain_dist.graphs.layer_graph import ConvLayer

WIDE_KERNEL = 5
"""From this width on PyTorch's depthwise weight gradient is 10 to 20 times slower than a compiled loop."""


def _fused_operators() -> Any:
    """Return oneDNN's fused convolution operators, ``None`` in a build of PyTorch without them."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    return getattr(torch.ops.mkldnn, "_convolution_pointwise", None)


_FUSED = _fused_operators()


def _can_fuse(x: Tensor) -> bool:
    takes = x.dtype in (torch.float32, torch.bfloat16) and x.device.type == "cpu"
    return _FUSED is not None and takes and not torch.is_grad_enabled() and not is_of_many_tasks(x)


def widened(x: Tensor) -> Tensor:
    """Return ``x`` as float32 where it is bfloat16, else ``x`` itself."""
    return x.float() if x.dtype == torch.bfloat16 else x


def convolve(x: Tensor, weight: Tensor, bias: Tensor, *, layer: ConvLayer, residual: Tensor | None = None) -> Tensor:
    """Return the layer's output: convolution, bias, then ReLU6 or the residual addition where the layer has one.

    Parameters
    ----------
    x
        Shape [N, in_channels, H, W].
    weight, bias
        Folded with the normalisation; [out, in/groups, k, k] and [out].
    residual
        The block's input, for a layer with ``residual_after``.
    """
    padding, stride = [(layer.kernel - 1) // 2] * 2, [layer.stride] * 2
    if not _can_fuse(x):
        y = F.conv2d(x, weight, bias, stride=layer.stride, padding=padding[0], groups=layer.groups)
        y = F.relu6(y) if layer.has_activation else y
        return y if residual is None else y + residual
    shape = (x, weight, bias, padding, stride, [1, 1], layer.groups)
    if residual is None:
        name, limits = ("hardtanh", [0.0, CAP]) if layer.has_activation else ("none", [])
        fused: Tensor = _FUSED(*shape, name, limits, "")
        return fused
    assert not layer.has_activation
    added: Tensor = _FUSED.binary(x, residual, *shape[1:], "add", 1.0, None, [], None)
    return added


def is_depthwise(layer: ConvLayer) -> bool:
    """Return whether every output channel reads one input channel of its own."""
    return layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels


def input_gradient(grad: Tensor, weight: Tensor, *, layer: ConvLayer, in_shape: torch.Size) -> Tensor:
    """Return dLoss/dInput ``[N, in, H, W]`` from dLoss/dOutput ``[N, out, H', W']`` of the convolution."""
    if layer.kernel == 1 and layer.stride == 1 and layer.groups == 1:
        return _rows_to_map(_rows(grad) @ weight.flatten(1), in_shape)
    if layer.stride == 1 and is_depthwise(layer):
        padding = (layer.kernel - 1) // 2
        flipped = channels_last(weight.flip(2, 3))
        return F.conv2d(grad, flipped, padding=padding, groups=layer.groups)
    if grad.dtype == torch.bfloat16:
        return input_gradient(grad.float(), weight.float(), layer=layer, in_shape=in_shape).bfloat16()
    if is_depthwise(layer) and is_compiled(grad):
        return depthwise_input_gradient(grad, weight, in_shape=in_shape, stride=layer.stride)
    empty = grad.new_empty(1).expand(in_shape)
    return _backward(grad, empty, weight, layer, input_too=True)


def weight_gradient(grad: Tensor, x: Tensor, *, layer: ConvLayer) -> Tensor:
    """Return dLoss/dWeight for the output channels of ``grad`` and the input channels of ``x``.

    ``grad`` ``[N, K, H', W']`` holds only the wanted output channels; of a depthwise layer ``x`` holds the same
    ones, of another layer the wanted input channels; where there are groups, both hold all.
    Shape of the result: [K, channels of x / groups or 1, k, k]; float32 of maps in bfloat16.
    """
    if layer.kernel == 1 and layer.stride == 1 and layer.groups == 1:
        return widened(_rows(grad).T @ _rows(x))[:, :, None, None]
    grad, x = widened(grad), widened(x)
    if is_depthwise(layer) and layer.kernel >= WIDE_KERNEL and is_compiled(grad):
        return depthwise_weight_gradient(grad, x, kernel=layer.kernel, stride=layer.stride)
    per_group = 1 if is_depthwise(layer) else x.shape[1] // layer.groups
    weight = grad.new_empty(1).expand(grad.shape[1], per_group, layer.kernel, layer.kernel)
    return _backward(grad, x, weight, layer, input_too=False)


def _backward(grad: Tensor, x: Tensor, weight: Tensor, layer: ConvLayer, *, input_too: bool) -> Tensor:
    padding, stride = [(layer.kernel - 1) // 2] * 2, [layer.stride] * 2
    groups = grad.shape[1] if is_depthwise(layer) else layer.groups
    wanted = [input_too, not input_too, False]
    result = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], groups, wanted
    )
    gradient: Tensor = result[0] if input_too else result[1]
    return gradient


def _rows(images: Tensor) -> Tensor:
    """Return ``[N, C, H, W]`` as ``[N * H * W, C]``: a view in channels_last."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _rows_to_map(rows: Tensor, shape: torch.Size) -> Tensor:
    num, channels, height, width = shape
    return rows.view(num, height, width, channels).permute(0, 3, 1, 2)
