"""Names of one layer alone: what they say, the quarters they cut, and what is refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_alone import QUARTERS, LayerAlone, layer_alone

GRAPH = layer_graph("mcunet")


@pytest.mark.parametrize("quarter", [None, *QUARTERS])
@pytest.mark.parametrize("layer", [0, 7, 41])
def test_a_name_is_read_as_it_is_written(layer: int, quarter: str | None) -> None:
    what = LayerAlone(layer=layer, quarter=quarter)
    assert layer_alone(what.name) == what


@pytest.mark.parametrize(
    "name", ["layer_alone", "layer_alone_", "layer_alone_x", "layer_alone_07", "layer_alone_7_", "layer_alone_7_best",
             "layer_alone_-1", "layer_alone_7 ", "xlayer_alone_7", "last_layer"],
)  # fmt: skip
def test_other_names_are_none_of_these(name: str) -> None:
    assert layer_alone(name) is None


@given(st.integers(0, len(GRAPH.layers) - 1), st.data())
def test_the_quarters_part_a_layers_channels_by_their_order(layer: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(GRAPH.layer(layer).out_channels)))
    rank = {channel: place for place, channel in enumerate(order)}
    groups = []
    for quarter in QUARTERS:
        (update,) = LayerAlone(layer=layer, quarter=quarter).plan(GRAPH, order=order).check(GRAPH).updates
        assert update.channels is not None
        groups.append(update.channels)
    assert sorted(channel for group in groups for channel in group) == sorted(order)
    for better, worse in pairwise(groups):
        assert max(rank[c] for c in better) < min(rank[c] for c in worse)
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


def test_the_whole_layer_names_no_channel() -> None:
    (update,) = LayerAlone(layer=5, quarter=None).plan(GRAPH).updates
    assert (update.layer, update.channels) == (5, None)


def test_a_layer_the_network_does_not_have_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'layer_alone_42': unknown layer; mcunet has layers 0 to 41"):
        LayerAlone(layer=42, quarter=None).plan(GRAPH)
