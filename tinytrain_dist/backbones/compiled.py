"""Compiled loops for what PyTorch does badly on the CPU, with PyTorch as the fallback of each.

Compiled at first use (``foundation.compiling``). Arrays are channels_last, so the innermost loop runs over contiguous
channels and becomes vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinytrain_dist.backbones.layout import is_of_many_tasks
from tinytrain_dist.foundation.compiling import compiled, compiler

CAP = 6.0
CAP_BITS = 0x40C0
"""6 in bfloat16."""


def is_compiled(x: Tensor) -> bool:
    """Return whether the compiled loops take tensors such as ``x``; a static rule, not a measurement."""
    return x.dtype == torch.float32 and _is_reachable(x)


def _is_compiled_half(x: Tensor) -> bool:
    """Return whether the loops over the bits of bfloat16 take ``x``: ordered as integers where it is above 0."""
    return x.dtype == torch.bfloat16 and _is_reachable(x)


def _is_reachable(x: Tensor) -> bool:
    return x.device.type == "cpu" and compiler() is not None and not is_of_many_tasks(x)


def depthwise_weight_gradient(grad: Tensor, x: Tensor, *, kernel: int, stride: int) -> Tensor:
    """Return dLoss/dWeight of a depthwise convolution.

    ``dW[c, i, j] = sum over n, h, w of grad[n, c, h, w] * x[n, c, h * s + i - p, w * s + j - p]``, p = (k - 1) // 2.

    Parameters
    ----------
    grad, x
        ``[N, C, H', W']`` and ``[N, C, H, W]``, float32 on the CPU, channels_last.

    Returns
    -------
    Tensor
        ``[C, 1, k, k]``.
    """
    total = np.zeros((kernel * kernel, x.shape[1]), dtype=np.float32)
    compiled(_depthwise)(_nhwc(grad), _nhwc(x), total, kernel, stride)
    return torch.from_numpy(total).T.reshape(x.shape[1], 1, kernel, kernel)


def depthwise_input_gradient(grad: Tensor, weight: Tensor, *, in_shape: torch.Size, stride: int) -> Tensor:
    """Return dLoss/dInput ``in_shape`` of a depthwise convolution.

    ``dX[n, c, h * s + i - p, w * s + j - p] = sum of grad[n, c, h, w] * W[c, i, j]``, p = (k - 1) // 2.

    Parameters
    ----------
    grad
        ``[N, C, H', W']``, float32 on the CPU, channels_last.
    weight
        ``[C, 1, k, k]``.
    """
    kernel = weight.shape[2]
    result = torch.zeros(in_shape[0], in_shape[2], in_shape[3], in_shape[1])
    taps = weight.reshape(in_shape[1], kernel * kernel).T.contiguous().numpy()
    compiled(_depthwise_input)(_nhwc(grad), taps, result.numpy(), kernel, stride)
    return result.permute(0, 3, 1, 2)


def relu6_mask(activation: Tensor) -> Tensor:
    """Return where ReLU6 lets a gradient through, bool of the same shape: 0 < activation < 6."""
    if _is_compiled_half(activation):
        mask = torch.empty_like(activation, dtype=torch.bool)
        compiled(_mark_half)(_flat(activation.view(torch.int16)), _flat(mask))
        return mask
    if not is_compiled(activation):
        return (activation > 0) & (activation < CAP)
    mask = torch.empty_like(activation, dtype=torch.bool)
    compiled(_mark)(_flat(activation), _flat(mask))
    return mask


def masked(grad: Tensor, mask: Tensor) -> Tensor:
    """Return ``grad`` where ``mask`` holds and 0 elsewhere."""
    if not is_compiled(grad):
        return grad * mask
    result = torch.empty_like(mask, dtype=grad.dtype)
    compiled(_keep)(_flat(grad.contiguous(memory_format=torch.channels_last)), _flat(mask), _flat(result))
    return result


def masked_(grad: Tensor, mask: Tensor) -> Tensor:
    """Return ``grad`` with 0 where ``mask`` does not hold; its memory is reused."""
    if _is_compiled_half(grad):
        result = grad.contiguous(memory_format=torch.channels_last)
        compiled(_clear_half)(_flat(result.view(torch.int16)), _flat(mask))
        return result
    if not is_compiled(grad):
        return grad.mul_(mask)
    result = grad.contiguous(memory_format=torch.channels_last)
    compiled(_clear)(_flat(result), _flat(mask))
    return result


def product_sums_(activation: Tensor, grad: Tensor, *, clears: bool) -> tuple[Tensor, Tensor]:
    """Return the sum of ``activation * grad`` over positions, ``[N, C]``, and ``grad``; both memories are reused.

    Parameters
    ----------
    activation, grad
        ``[N, C, H, W]``; channels_last where it is to be fast. The activation is lost.
    clears
        Whether the gradient that is returned is 0 where ReLU6 lets none through; the sums are over all of it.
    """
    if is_compiled(grad) and activation.is_contiguous(memory_format=torch.channels_last):
        result = grad.contiguous(memory_format=torch.channels_last)
        compiled(_multiply)(_flat(activation), _flat(result), clears)
        return activation.sum(dim=(2, 3)), result
    sums = (activation * grad).sum(dim=(2, 3))
    return sums, grad.mul_(relu6_mask(activation)) if clears else grad


def select_channels(images: Tensor, chosen: Tensor) -> Tensor:
    """Return some channels ``[N, K, H, W]`` of ``[N, C, H, W]``, channels_last kept.

    PyTorch's ``index_select`` over the innermost axis takes four to ten times as long.
    """
    if _is_compiled_half(images):
        return select_channels(images.view(torch.int16), chosen).view(torch.bfloat16)
    rows = images.permute(0, 2, 3, 1)
    if not (is_compiled(images) or (images.dtype == torch.int16 and compiler() is not None)):
        return rows.index_select(3, chosen).permute(0, 3, 1, 2)
    result = torch.empty(*rows.shape[:3], len(chosen), dtype=images.dtype)
    of_pixel = rows.reshape(-1, rows.shape[3])
    compiled(_take)(of_pixel.numpy(), chosen.numpy(), result.view(-1, len(chosen)).numpy())
    return result.permute(0, 3, 1, 2)


def _nhwc(images: Tensor) -> np.ndarray[Any, Any]:
    return images.permute(0, 2, 3, 1).contiguous().numpy()


def _flat(images: Tensor) -> np.ndarray[Any, Any]:
    return images.permute(0, 2, 3, 1).reshape(-1).numpy()


def _mark(activation: Any, mask: Any) -> None:
    for i in range(activation.size):
        mask[i] = (activation[i] > 0.0) & (activation[i] < 6.0)


def _mark_half(bits: Any, mask: Any) -> None:
    for i in range(bits.size):
        mask[i] = (bits[i] > 0) & (bits[i] < CAP_BITS)


def _keep(grad: Any, mask: Any, result: Any) -> None:
    for i in range(grad.size):
        result[i] = grad[i] if mask[i] else np.float32(0.0)


def _take(rows: Any, chosen: Any, result: Any) -> None:
    for i in range(rows.shape[0]):
        for j in range(chosen.size):
            result[i, j] = rows[i, chosen[j]]


def _clear(grad: Any, mask: Any) -> None:
    for i in range(grad.size):
        # a product, as in the fallback; a branch would not become vector instructions
        grad[i] = grad[i] * np.float32(mask[i])


def _clear_half(bits: Any, mask: Any) -> None:
    for i in range(bits.size):
        bits[i] = bits[i] * np.int16(mask[i])


def _multiply(activation: Any, grad: Any, clears: bool) -> None:
    if not clears:
        for i in range(grad.size):
            activation[i] = activation[i] * grad[i]
        return
    for i in range(grad.size):
        inside = (activation[i] > 0.0) & (activation[i] < 6.0)
        activation[i] = activation[i] * grad[i]
        grad[i] = grad[i] * np.float32(inside)


def _depthwise_input(grad: Any, taps: Any, result: Any, kernel: int, stride: int) -> None:
    num, out_height, out_width, channels = grad.shape
    height, width = result.shape[1], result.shape[2]
    padding = (kernel - 1) // 2
    for n in range(num):
        for h in range(out_height):
            for i in range(max(0, padding - h * stride), min(kernel, height + padding - h * stride)):
                row = h * stride + i - padding
                for w in range(out_width):
                    for j in range(max(0, padding - w * stride), min(kernel, width + padding - w * stride)):
                        column = w * stride + j - padding
                        for c in range(channels):
                            result[n, row, column, c] += grad[n, h, w, c] * taps[i * kernel + j, c]


def _depthwise(grad: Any, x: Any, total: Any, kernel: int, stride: int) -> None:
    num, out_height, out_width, channels = grad.shape
    height, width = x.shape[1], x.shape[2]
    padding = (kernel - 1) // 2
    for n in range(num):
        for h in range(out_height):
            for i in range(max(0, padding - h * stride), min(kernel, height + padding - h * stride)):
                row = h * stride + i - padding
                for w in range(out_width):
                    for j in range(max(0, padding - w * stride), min(kernel, width + padding - w * stride)):
                        column = w * stride + j - padding
                        for c in range(channels):
                            total[i * kernel + j, c] += grad[n, h, w, c] * x[n, row, column, c]
