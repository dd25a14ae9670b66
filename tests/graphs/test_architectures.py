"""Names, widths, hashes, resolutions and block selection of the layer graphs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.foundation.errors import ConfigError, ExitCode, PlanError
from tinytrain_dist.graphs.architectures import (
    BACKBONES,
    Architecture,
    Block,
    Builder,
    backbone_names,
    layer_graph,
    make_divisible,
)
from tinytrain_dist.graphs.layer_graph import LayerGraph


@pytest.mark.parametrize("name", ["mcunett", "resnet50", "mcunet_no_mix", "mobilenet_v2_w", "../mcunet", ""])
def test_unknown_name_is_a_usage_error(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown backbone") as caught:
        layer_graph(name)
    assert caught.value.exit_code is ExitCode.USAGE


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mcunet'"):
        layer_graph("mcunett")


@pytest.mark.parametrize("width", ["0.05", "2.5", "100"])
def test_width_out_of_range_names_the_range(width: str) -> None:
    with pytest.raises(ConfigError, match=r"allowed 0\.1 to 2\.0"):
        layer_graph(f"mobilenet_v2_w{width}")


def test_width_0_35_is_the_registered_network() -> None:
    graph = layer_graph("mobilenet_v2_w0.35")
    assert graph.layers == layer_graph("mobilenet_v2").layers
    assert graph.architecture_hash == layer_graph("mobilenet_v2").architecture_hash


def test_width_1_has_the_weights_of_the_original_network() -> None:
    # torchvision's mobilenet_v2: 3,504,872 parameters, 1,281,000 of them in the classifier; 300,774,272 MACs at 224 px
    assert layer_graph("mobilenet_v2_w1.0", 224).parameters == 3_504_872 - 1_281_000
    assert layer_graph("mobilenet_v2_w1.0", 224).forward_macs == 299_494_272


@given(st.floats(min_value=0.1, max_value=2000.0))
def test_make_divisible_keeps_nine_tenths(channels: float) -> None:
    rounded = make_divisible(channels)
    assert rounded % 8 == 0
    assert rounded >= 8
    assert rounded >= 0.9 * channels


@pytest.mark.parametrize("name", backbone_names())
def test_layers_chain(name: str) -> None:
    layers = layer_graph(name, 84).layers
    assert [x.index for x in layers] == list(range(len(layers)))
    for before, after in pairwise(layers):
        assert (before.out_channels, before.out_size) == (after.in_channels, after.in_size)
    assert all(x.groups == (x.in_channels if x.role == "depthwise" else 1) for x in layers)


@pytest.mark.parametrize("name", backbone_names())
def test_residual_stands_where_shapes_are_equal(name: str) -> None:
    graph = layer_graph(name)
    for number in range(graph.num_blocks):
        block = graph.block_layers(number)
        stride = max(x.stride for x in block)
        equal = stride == 1 and block[0].in_channels == block[-1].out_channels
        assert block[-1].residual_after == equal
        assert not any(x.residual_after for x in block[:-1])


def test_architecture_hash_depends_on_shapes_alone() -> None:
    assert layer_graph("mcunet", 84).architecture_hash == layer_graph("mcunet", 128).architecture_hash
    hashes = {layer_graph(name).architecture_hash for name in backbone_names()}
    assert len(hashes) == len(backbone_names())


def test_architecture_hash_is_stable_across_versions() -> None:
    """Checkpoints written earlier carry these: a change here orphans them."""
    assert layer_graph("mcunet").architecture_hash == "c2bc4b3742ea2ca5"
    assert layer_graph("proxylessnas_no_mix").architecture_hash == "25917b4f873a3ef1"


def test_last_blocks() -> None:
    mcunet, mobilenet = layer_graph("mcunet"), layer_graph("mobilenet_v2")
    assert mcunet.last_blocks(6) == tuple(range(24, 42))
    assert len(mobilenet.last_blocks(6)) == 19
    assert mobilenet.last_blocks(0) == (51,)
    assert mcunet.last_blocks(0) == ()
    assert mcunet.last_blocks(14) == tuple(range(1, 42))


@pytest.mark.parametrize("count", [-1, 15])
def test_last_blocks_out_of_range(count: int) -> None:
    with pytest.raises(PlanError, match="14 blocks"):
        layer_graph("mcunet").last_blocks(count)


@pytest.mark.parametrize("index", [-1, 42])
def test_unknown_layer_is_named(index: int) -> None:
    with pytest.raises(PlanError, match="layers 0 to 41"):
        layer_graph("mcunet").layer(index)


@pytest.mark.parametrize("resolution", [16, 1024])
def test_resolution_bounds_are_inside(resolution: int) -> None:
    assert layer_graph("mcunet", resolution).resolution == resolution


@pytest.mark.parametrize("resolution", [-1, 0, 15, 1025])
def test_resolution_out_of_bounds(resolution: int) -> None:
    with pytest.raises(ConfigError, match="allowed 16 to 1024 pixels"):
        layer_graph("mcunet", resolution)


@given(st.integers(16, 1023))
def test_macs_grow_with_resolution(resolution: int) -> None:
    graph, larger = layer_graph("mobilenet_v2", resolution), layer_graph("mobilenet_v2", resolution + 1)
    assert graph.forward_macs <= larger.forward_macs and graph.weights == larger.weights


def _changed(graph: LayerGraph, index: int, **fields: object) -> LayerGraph:
    layers = list(graph.layers)
    layers[index] = replace(layers[index], **fields)  # type: ignore[arg-type]
    return replace(graph, layers=tuple(layers))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Builder], None]]:
    """Registers a builder as ``own`` for one test."""
    list(BACKBONES)  # load the built-in ones first
    layer_graph.cache_clear()
    yield lambda builder: monkeypatch.setitem(BACKBONES._items, "own", builder)
    layer_graph.cache_clear()


OWN = Architecture(
    name="own",
    stem_channels=8,
    blocks=(
        Block(expand_channels=8, kernel=3, stride=1, out_channels=8, residual=True),
        Block(expand_channels=24, kernel=5, stride=2, out_channels=12, residual=False),
    ),
)


def test_a_registered_backbone_is_found_by_name_and_listed(registered: Callable[[Builder], None]) -> None:
    registered(OWN.graph)
    assert layer_graph("own", 32) == OWN.graph(32)
    assert backbone_names()[-1] == "own"
    with pytest.raises(ConfigError, match="did you mean 'own'"):
        layer_graph("owm", 32)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"index": 2, "in_channels": 9}, "layer 2: in_channels: found 9; allowed: 8"),
        ({"index": 1, "out_size": 15}, "layer 1: out_size: found 15; allowed: 16"),
        ({"index": 4, "kernel": 4}, "layer 4: kernel"),
        ({"index": 4, "groups": 2}, "layer 4: groups: found 2; allowed: 24"),
        ({"index": 5, "residual_after": True}, "layer 5: residual_after adds"),
        ({"index": 5, "block": 0}, "layer 5: block: found 0; allowed: 1"),
        ({"index": 0, "in_channels": 1}, "layer 0: in_channels: found 1; allowed: 3"),
    ],
)
def test_a_graph_whose_layers_do_not_follow_is_refused(
    change: dict[str, int], expected: str, registered: Callable[[Builder], None]
) -> None:
    index = change.pop("index")
    registered(lambda resolution: _changed(OWN.graph(resolution), index, **change))
    with pytest.raises(ConfigError, match=f"backbone 'own': {expected}"):
        layer_graph("own", 32)


@pytest.mark.parametrize(
    ("builder", "expected"),
    [
        (lambda resolution: None, "its builder returned NoneType; allowed: a LayerGraph"),
        (replace(OWN, name="mine").graph, "'own' at 32 pixels: its builder returned 'mine' at 32"),
        (lambda resolution: OWN.graph(64), "its builder returned 'own' at 64"),
    ],
)
def test_a_builder_returns_the_graph_that_was_asked_for(
    builder: Builder, expected: str, registered: Callable[[Builder], None]
) -> None:
    registered(builder)
    with pytest.raises(ConfigError, match=expected):
        layer_graph("own", 32)
