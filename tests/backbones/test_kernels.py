"""Convolution and gradients: every path equals plain autograd, and each other, with and without the fast kernels."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrain_dist.adaptation.numerics import has_bf16
from tinytrain_dist.backbones import compiled, kernels
from tinytrain_dist.foundation.compiling import forget_compiler
from tinytrain_dist.graphs.layer_graph import ConvLayer, Role

NUM = 3


def layer_of(
    role: Role, *, inputs: int = 12, outputs: int = 12, kernel: int = 1, stride: int = 1, groups: int = 1, size: int = 9
) -> ConvLayer:
    return ConvLayer(
        index=0, block=0, role=role, in_channels=inputs, out_channels=outputs, kernel=kernel, stride=stride,
        groups=groups, in_size=size, out_size=-(-size // stride), residual_after=role == "project",
    )  # fmt: skip


LAYERS = [
    layer_of("stem", inputs=3, kernel=3, stride=2),
    *(layer_of("depthwise", groups=12, kernel=k, stride=s) for k in (3, 5, 7) for s in (1, 2)),
    *(layer_of("depthwise", groups=12, kernel=k, stride=s, size=3) for k in (5, 7) for s in (1, 2)),
    layer_of("expand", outputs=20),
    layer_of("expand", outputs=20, stride=2),
    layer_of("expand", outputs=20, groups=4),
    layer_of("expand", outputs=20, groups=2, kernel=5, stride=2),
    layer_of("project"),
    layer_of("mix", outputs=16, kernel=3),
]


def name_of(layer: ConvLayer) -> str:
    return f"{layer.role}-k{layer.kernel}-s{layer.stride}-g{layer.groups}-{layer.in_size}px"


def tensors_of(layer: ConvLayer, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return input, weight, bias and the gradient of the output before ReLU6, channels_last."""
    draw = torch.Generator().manual_seed(7)
    shape = (NUM, layer.in_channels, layer.in_size, layer.in_size)
    weight = torch.randn(layer.out_channels, layer.channels_per_group, layer.kernel, layer.kernel, generator=draw)
    x, bias = torch.randn(shape, generator=draw) * 3, torch.randn(layer.out_channels, generator=draw)
    grad = torch.randn(NUM, layer.out_channels, layer.out_size, layer.out_size, generator=draw)
    x, weight, grad = (t.to(dtype).contiguous(memory_format=torch.channels_last) for t in (x, weight, grad))
    return x, weight, bias.to(dtype), grad


def plain(layer: ConvLayer, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, stride=layer.stride, padding=(layer.kernel - 1) // 2, groups=layer.groups)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine without Numba."""
    monkeypatch.setitem(sys.modules, "numba", None)
    forget_compiler()
    yield
    monkeypatch.undo()
    forget_compiler()


@pytest.fixture(params=["as installed", "no compiler", "no fused operator", "neither"])
def installation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param in ("no compiler", "neither"):
        request.getfixturevalue("no_compiler")
    if request.param in ("no fused operator", "neither"):
        monkeypatch.setattr(kernels, "_FUSED", None)
    return str(request.param)


TOLERANCE: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-12},
    torch.float32: {"rtol": 1e-4, "atol": 1e-3},
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_convolution_equals_plain_operations(layer: ConvLayer, dtype: torch.dtype, installation: str) -> None:
    x, weight, bias, _ = tensors_of(layer, dtype)
    with torch.no_grad():
        expected = plain(layer, x, weight, bias)
        expected = F.relu6(expected) if layer.has_activation else expected
        torch.testing.assert_close(kernels.convolve(x, weight, bias, layer=layer), expected, **TOLERANCE[dtype])
        if layer.role == "project":
            found = kernels.convolve(x, weight, bias, layer=layer, residual=x)
            torch.testing.assert_close(found, expected + x, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_gradients_equal_autograd(layer: ConvLayer, dtype: torch.dtype, installation: str) -> None:
    x, weight, bias, grad = tensors_of(layer, dtype)
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    of_input, of_weight = torch.autograd.grad(plain(layer, *leaves, bias), leaves, grad)
    with torch.no_grad():
        found = kernels.input_gradient(grad, weight, layer=layer, in_shape=x.shape)
        torch.testing.assert_close(found, of_input, **TOLERANCE[dtype])
        found = kernels.weight_gradient(grad, x, layer=layer)
        torch.testing.assert_close(found, of_weight, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layer", [x for x in LAYERS if x.groups in (1, 12)], ids=name_of)
def test_a_slice_of_the_weight_gradient(layer: ConvLayer, dtype: torch.dtype, installation: str) -> None:
    x, _, _, grad = tensors_of(layer, dtype)
    whole = kernels.weight_gradient(grad, x, layer=layer)
    chosen = [0, 2, 11]
    of_channel = x[:, chosen] if layer.groups > 1 else x
    found = kernels.weight_gradient(grad[:, chosen], of_channel, layer=layer)
    torch.testing.assert_close(found, whole[chosen], **TOLERANCE[dtype])
    if layer.groups == 1 and layer.in_channels == 12:
        found = kernels.weight_gradient(grad, x[:, chosen], layer=layer)
        torch.testing.assert_close(found, whole[:, chosen], **TOLERANCE[dtype])


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 11])
def test_the_compiled_depthwise_gradient_equals_autograd_in_float64(kernel: int, stride: int, size: int) -> None:
    layer = layer_of("depthwise", groups=12, kernel=kernel, stride=stride, size=size)
    x, weight, bias, grad = (t.double() for t in tensors_of(layer, torch.float32))
    leaf = weight.requires_grad_()
    (expected,) = torch.autograd.grad(plain(layer, x, leaf, bias), leaf, grad)
    found = compiled.depthwise_weight_gradient(grad.float(), x.float(), kernel=kernel, stride=stride)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    (of_input,) = torch.autograd.grad(plain(layer, x.requires_grad_(), weight, bias), x, grad)
    found = compiled.depthwise_input_gradient(grad.float(), weight.detach().float(), in_shape=x.shape, stride=stride)
    torch.testing.assert_close(found.double(), of_input, rtol=1e-4, atol=1e-4)


def test_masks_and_masked_gradients_are_the_same_compiled_or_not(no_compiler: None) -> None:
    fallback = masks()
    forget_compiler()
    with pytest.MonkeyPatch.context() as context:
        context.delitem(sys.modules, "numba")
        assert compiled.is_compiled(torch.zeros(1)) == (_numba() is not None)
        for found, expected in zip(masks(), fallback, strict=True):
            assert torch.equal(found, expected)


def _numba() -> object:
    try:
        import numba
    except ImportError:
        return None
    return numba


def masks() -> tuple[Tensor, Tensor]:
    """Values below, at, between and above the limits of ReLU6."""
    values = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 3.0, 5.9999995, 6.0, 7.0, float("inf"), float("-inf")])
    activation = values.repeat(12).view(2, 4, 5, 3).contiguous(memory_format=torch.channels_last)
    grad = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(3))
    mask = compiled.relu6_mask(activation)
    assert torch.equal(mask, (activation > 0) & (activation < 6))
    found = compiled.masked(grad, mask)
    assert torch.equal(found, grad * mask)
    assert torch.equal(compiled.masked_(grad.clone(), mask), found)
    assert torch.equal(compiled.masked_(grad.contiguous(memory_format=torch.channels_last), mask), found)
    return mask, found


needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="the CPU has no instructions for bf16")
BF16_STEP = 2.0**-7
"""What the few roundings on the way to a result may take, as a share of the largest one."""


def assert_near(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """``expected`` in float64, from the same rounded numbers."""
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=BF16_STEP * float(expected.abs().max()))


@needs_bf16
@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_every_layer_in_bf16(layer: ConvLayer, installation: str) -> None:
    """Sums are float32 or better: only what goes in and comes out is rounded. Weight gradients come out in float32."""
    half, bf16 = tensors_of(layer, torch.bfloat16), torch.bfloat16
    (x, weight, bias, grad), (x64, weight64, bias64, grad64) = half, [t.double() for t in half]
    leaves = [x64.clone().requires_grad_(), weight64.clone().requires_grad_()]
    made = plain(layer, *leaves, bias64)
    of_input, of_weight = torch.autograd.grad(made, leaves, grad64)
    with torch.no_grad():
        expected = F.relu6(made) if layer.has_activation else made
        assert_near(kernels.convolve(x, weight, bias, layer=layer), expected, bf16)
        if layer.role == "project":
            found = kernels.convolve(x, weight, bias, layer=layer, residual=x)
            assert_near(found, expected + x64, bf16)
        assert_near(kernels.input_gradient(grad, weight, layer=layer, in_shape=x.shape), of_input, bf16)
        assert_near(kernels.weight_gradient(grad, x, layer=layer), of_weight, torch.float32)


def test_masks_of_every_number_in_bf16(installation: str) -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(1, 256, 16, 16)
    values = bits.contiguous(memory_format=torch.channels_last).view(torch.bfloat16)
    mask = compiled.relu6_mask(values)
    assert torch.equal(mask, (values.float() > 0) & (values.float() < 6))
    finite = values.where(values.isfinite(), 1.0)
    for gradient in (finite.clone(), finite.contiguous()):
        assert torch.equal(compiled.masked_(gradient, mask), finite.where(mask, 0.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_selected_channels(dtype: torch.dtype, layout: torch.memory_format, installation: str) -> None:
    images = torch.randn(3, 10, 4, 5).to(dtype).contiguous(memory_format=layout)
    for chosen in ([0], [1, 4, 9], list(range(10))):
        found = compiled.select_channels(images, torch.tensor(chosen))
        assert torch.equal(found, images[:, chosen])
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_nothing_is_compiled_without_the_compiler(no_compiler: None) -> None:
    assert not compiled.is_compiled(torch.zeros(1))


@pytest.mark.parametrize("clears", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (2, 144, 6, 6), (2, 48, 21, 21)])
def test_sums_of_products_and_the_gradient_past_relu6(
    shape: tuple[int, ...], dtype: torch.dtype, clears: bool, installation: str
) -> None:
    """The same bits whichever way they are made: Fisher information decides plans."""
    generator = torch.Generator().manual_seed(1)
    layout = torch.channels_last
    activation = (4 * torch.randn(shape, generator=generator, dtype=dtype)).clamp(0, 6).contiguous(memory_format=layout)
    grad = torch.randn(shape, generator=generator, dtype=dtype).contiguous(memory_format=layout)
    sums, passed = compiled.product_sums_(activation.clone(), grad.clone(), clears=clears)
    assert torch.equal(sums, (activation * grad).sum(dim=(2, 3)))
    assert torch.equal(passed, grad * ((activation > 0) & (activation < 6)) if clears else grad)
