"""The layer graphs against the published layer tables, row by row, and the published totals."""

import csv
from pathlib import Path

import pytest

from tinytrain_dist.graphs.architectures import layer_graph

REFERENCE = Path(__file__).parents[1] / "backbones" / "reference"
TABLES = {"mcunet": "mcunet_5fps", "mobilenet_v2": "mobilenet_v2_w035", "proxylessnas": "proxylessnas_w03"}
# layers, blocks, weights, forward MACs at 128 px, feature channels
TOTALS = {
    "mcunet": (42, 14, 463_216, 22_453_504, 160),
    "mobilenet_v2": (52, 17, 288_864, 17_449_728, 448),
    "proxylessnas": (61, 20, 357_680, 19_209_728, 384),
}
NO_MIX = {"mobilenet_v2_no_mix": (51, 238_688, 112), "proxylessnas_no_mix": (60, 320_816, 96)}


@pytest.mark.parametrize("name", TABLES)
def test_every_row_equals_the_reference_table(name: str) -> None:
    with (REFERENCE / f"{TABLES[name]}.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    layers = layer_graph(name, 128).layers
    assert len(rows) == len(layers)
    for row, layer in zip(rows, layers, strict=True):
        assert row["role"] == layer.role
        assert int(row["conv_index"]) == layer.index
        for key in ("block", "in_channels", "out_channels", "kernel", "stride", "groups", "in_size", "out_size"):
            assert int(row[key]) == getattr(layer, key), (layer.index, key)
        assert int(row["weights"]) == layer.weights
        assert int(row["macs"]) == layer.macs
        assert bool(int(row["residual_after"])) == layer.residual_after


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_exact(name: str) -> None:
    graph = layer_graph(name, 128)
    found = (len(graph.layers), graph.num_blocks, graph.weights, graph.forward_macs, graph.feature_channels)
    assert found == TOTALS[name]
    assert graph.parameters == graph.weights + sum(2 * x.out_channels for x in graph.layers)


@pytest.mark.parametrize("name", NO_MIX)
def test_variant_without_mix_ends_with_the_last_projection(name: str) -> None:
    graph = layer_graph(name)
    assert (len(graph.layers), graph.weights, graph.feature_channels) == NO_MIX[name]
    assert graph.layers[-1].role == "project"
    with_mix = layer_graph(name.removesuffix("_no_mix"))
    assert graph.num_blocks == with_mix.num_blocks
    assert graph.layers == with_mix.layers[:-1]


def test_last_layer_weights_of_the_paper() -> None:
    last = [layer_graph(name).layers[-1].weights for name in TOTALS]
    assert last == [92_160, 50_176, 36_864]
