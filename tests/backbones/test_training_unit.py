"""The fused training step of a unit against PyTorch's own layers: activation, every gradient, running statistics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrain_dist.backbones.network import ConvUnit, build_backbone
from tinytrain_dist.backbones.training_unit import takes
from tinytrain_dist.graphs.layer_graph import ConvLayer, Role


def make_unit(role: Role, *, kernel: int, stride: int, channels: int, out: int) -> ConvUnit:
    torch.manual_seed(0)
    unit = ConvUnit(
        ConvLayer(
            index=0, block=0, role=role, in_channels=channels, out_channels=out, kernel=kernel, stride=stride,
            groups=channels if role == "depthwise" else 1, in_size=10, out_size=-(-10 // stride), residual_after=False,
        )
    )  # fmt: skip
    with torch.no_grad():
        unit.conv.weight.normal_(0, 0.5)
        unit.norm.weight.uniform_(0.5, 3.0)
        unit.norm.bias.uniform_(-1.0, 3.0)
    return unit.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def by_layers(unit: ConvUnit, x: Tensor) -> Tensor:
    """The unit in float64 by PyTorch's own layers."""
    layer, norm = unit.layer, unit.norm
    z = F.conv2d(
        x, unit.conv.weight.double(), stride=layer.stride, padding=(layer.kernel - 1) // 2, groups=layer.groups
    )
    y = F.batch_norm(z, None, None, norm.weight.double(), norm.bias.double(), training=True, eps=norm.eps)
    return F.relu6(y) if layer.has_activation else y


UNITS: list[tuple[Role, int, int, int, int]] = [
    ("stem", 3, 2, 3, 16),
    ("expand", 1, 1, 8, 24),
    ("depthwise", 3, 1, 24, 24),
    ("depthwise", 3, 2, 24, 24),
    ("depthwise", 7, 1, 20, 20),
    ("depthwise", 5, 2, 20, 20),
    ("project", 1, 1, 24, 10),
]


@pytest.mark.parametrize(("role", "kernel", "stride", "channels", "out"), UNITS)
def test_it_is_what_the_layers_compute(role: Role, kernel: int, stride: int, channels: int, out: int) -> None:
    unit = make_unit(role, kernel=kernel, stride=stride, channels=channels, out=out)
    x = (torch.randn(5, channels, 10, 10) * 2 + 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert takes(x), "this machine compiles no loops: nothing is tested"
    upstream = torch.randn(by_layers(unit, x.detach().double()).shape)
    unit(x).backward(upstream)
    found = [x.grad, *(p.grad for p in unit.parameters())]
    exact = x.detach().double().requires_grad_()
    unit.zero_grad()
    by_layers(unit, exact).backward(upstream.double())
    wanted = [exact.grad, *(p.grad for p in unit.parameters())]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours, theirs.float(), rtol=2e-3, atol=2e-3 * float(theirs.abs().max()))


def test_running_statistics_move_as_in_pytorch() -> None:
    unit = make_unit("expand", kernel=1, stride=1, channels=8, out=24)
    unit.norm.momentum = 0.3
    x = (torch.randn(4, 8, 6, 6) + 3).contiguous(memory_format=torch.channels_last)
    other = torch.nn.BatchNorm2d(24, momentum=0.3)
    other(F.conv2d(x, unit.conv.weight))
    unit(x)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(unit.norm, name), getattr(other, name), rtol=1e-4, atol=1e-5)


def test_whole_network_has_the_gradient_of_the_layers() -> None:
    images = torch.rand(6, 3, 32, 32) * 2 - 1
    gradients = []
    for fused in (True, False):
        backbone = build_backbone("mobilenet_v2_w0.1", resolution=32, seed=1).train()
        x = images.contiguous(memory_format=torch.channels_last if fused else torch.contiguous_format)
        if fused:
            backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            loss = backbone(x).square().sum()
        else:
            backbone.double()  # float64 takes the layers
            loss = backbone(x.double()).square().sum()
        loss.backward()
        gradients.append(torch.cat([p.grad.float().flatten() for p in backbone.parameters() if p.grad is not None]))
    cosine = F.cosine_similarity(gradients[0], gradients[1], dim=0)
    assert float(cosine) > 0.9999
