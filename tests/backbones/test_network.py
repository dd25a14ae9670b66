"""The torch networks against their layer graphs, and runs cut between any two layers."""

import pytest
import torch
from torch import Tensor

from tinytrain_dist.backbones.network import Backbone, LayerState, build_backbone, init_weights
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.architectures import backbone_names, layer_graph

NAMES = backbone_names()


def images(*, count: int = 2, resolution: int = 32, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, resolution, resolution, generator=generator, dtype=dtype) * 2 - 1


def unlike_default(backbone: Backbone) -> Backbone:
    """Give every normalisation values that an identity would hide."""
    generator = torch.Generator().manual_seed(1)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return backbone


@pytest.mark.parametrize("resolution", [64, 84, 128])
@pytest.mark.parametrize("name", NAMES)
def test_maps_have_the_shapes_of_the_graph(name: str, resolution: int) -> None:
    backbone = build_backbone(name, resolution=resolution)
    x = images(count=1, resolution=resolution)
    with torch.no_grad():
        state = LayerState(x)
        for layer in layer_graph(name, resolution).layers:
            assert tuple(state.x.shape) == (1, layer.in_channels, layer.in_size, layer.in_size)
            state = backbone.run(state, start=layer.index, stop=layer.index + 1)
            assert tuple(state.x.shape) == (1, layer.out_channels, layer.out_size, layer.out_size)
        assert tuple(backbone.pool(state).shape) == (1, backbone.graph.feature_channels)


@pytest.mark.parametrize("name", [*NAMES, "mobilenet_v2_w0.5"])
def test_parameters_equal_the_graph(name: str) -> None:
    backbone = build_backbone(name)
    assert sum(x.numel() for x in backbone.parameters()) == backbone.graph.parameters
    assert sum(x.conv.weight.numel() for x in map(backbone.unit, range(len(backbone.units)))) == backbone.graph.weights


@pytest.mark.parametrize("name", NAMES)
def test_activation_follows_every_layer_except_projections(name: str) -> None:
    backbone = unlike_default(build_backbone(name))
    seen: dict[int, tuple[float, float]] = {}

    def tap(index: int, activation: Tensor) -> Tensor:
        seen[index] = (float(activation.min()), float(activation.max()))
        return activation

    with torch.no_grad():
        backbone.run(LayerState(images() * 50), start=0, stop=len(backbone.units), taps=tap)
    for layer in backbone.graph.layers:
        low, high = seen[layer.index]
        assert (low >= 0 and high <= 6) == layer.has_activation, layer.index


@pytest.mark.parametrize("name", NAMES)
def test_a_run_cut_anywhere_equals_forward(name: str) -> None:
    backbone = unlike_default(build_backbone(name))
    stop = len(backbone.units)
    x = images()
    with torch.no_grad():
        whole = backbone(x)
        for cut in range(stop + 1):
            state = backbone.run(LayerState(x), start=0, stop=cut)
            state = backbone.run(LayerState(*state), start=cut, stop=stop)
            assert torch.equal(backbone.pool(state), whole), cut


def test_residual_is_pending_only_inside_a_residual_block() -> None:
    backbone = build_backbone("mcunet")
    state = LayerState(images())
    with torch.no_grad():
        for layer in backbone.graph.layers:
            state = backbone.run(state, start=layer.index, stop=layer.index + 1)
            block = backbone.graph.block_layers(layer.block)
            assert (state.residual is not None) == (block[-1].residual_after and layer is not block[-1])


def test_a_cut_without_its_residual_is_a_bug() -> None:
    backbone = build_backbone("mcunet")
    last = next(x for x in backbone.graph.layers if x.residual_after)
    state = backbone.run(LayerState(images()), start=0, stop=last.index)
    with pytest.raises(AssertionError, match=f"layer {last.index}"):
        backbone.run(LayerState(state.x), start=last.index, stop=last.index + 1)


def test_tap_is_before_the_residual_addition_and_may_replace() -> None:
    backbone = build_backbone("mcunet")
    last = next(x for x in backbone.graph.layers if x.residual_after)
    before = backbone.run(LayerState(images()), start=0, stop=backbone.graph.block_layers(last.block)[0].index)

    def silence(index: int, activation: Tensor) -> Tensor:
        return torch.zeros_like(activation) if index == last.index else activation

    after = backbone.run(
        before, start=backbone.graph.block_layers(last.block)[0].index, stop=last.index + 1, taps=silence
    )
    assert torch.equal(after.x, before.x)
    assert after.residual is None


def test_gradient_reaches_a_tapped_activation() -> None:
    backbone = build_backbone("mobilenet_v2")
    kept: list[Tensor] = []

    def tap(index: int, activation: Tensor) -> Tensor:
        if index == 51:
            kept.append(activation.detach().requires_grad_())
            return kept[-1]
        return activation

    total = backbone.pool(backbone.run(LayerState(images()), start=0, stop=52, taps=tap)).sum()
    torch.autograd.backward(total)
    assert kept[0].grad is not None
    assert bool((kept[0].grad != 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_float64_and_channels_last_agree_with_the_plain_run(name: str) -> None:
    backbone = build_backbone(name)
    with torch.no_grad():
        plain = backbone(images())
        for parameter in backbone.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        last = backbone(images().contiguous(memory_format=torch.channels_last))
        exact = backbone.double()(images().double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(last, plain)
    torch.testing.assert_close(plain.double(), exact, rtol=1e-4, atol=1e-4)


def test_initialisation_is_a_pure_function_of_its_seed() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = build_backbone("mcunet", seed=3)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator moved"
    torch.manual_seed(99)
    second, other = build_backbone("mcunet", seed=3), build_backbone("mcunet", seed=4)
    for a, b, c in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dim() == 1 or not torch.equal(a, c)


def test_initialisation_has_the_spread_of_fan_out() -> None:
    backbone = unlike_default(build_backbone("mcunet"))
    init_weights(backbone, 0)
    for layer in backbone.graph.layers:
        unit = backbone.unit(layer.index)
        expected = (2 / (layer.kernel**2 * layer.out_channels / layer.groups)) ** 0.5
        if layer.weights > 2000:
            assert float(unit.conv.weight.detach().std()) == pytest.approx(expected, rel=0.1)
        assert unit.norm.running_var is not None
        assert bool((unit.norm.running_var == 1).all())


def test_fresh_backbone_is_in_eval_mode_and_batch_independent() -> None:
    backbone = build_backbone("proxylessnas")
    assert not backbone.training
    with torch.no_grad():
        both, one = backbone(images()), backbone(images()[:1])
    torch.testing.assert_close(both[:1], one)


def test_unknown_name_is_a_user_error() -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        build_backbone("mobilenet_v3")
