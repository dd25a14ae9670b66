"""Whether a layer graph of another package is one that the counters and the network can be built on."""

from __future__ import annotations

from collections.abc import Iterator

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph

IMAGE_CHANNELS = 3


def check_graph(found: object, *, name: str, resolution: int) -> LayerGraph:
    """Return ``found`` if it is a graph called ``name`` at ``resolution`` pixels whose layers follow each other.

    Raises
    ------
    ConfigError
        It is not; names the backbone, the layer, what was found and what is allowed.
    """
    if not isinstance(found, LayerGraph) or not found.layers:
        raise ConfigError(f"backbone {name!r}: its builder returned {type(found).__name__}; allowed: a LayerGraph")
    if (found.name, found.resolution) != (name, resolution):
        raise ConfigError(
            f"backbone {name!r} at {resolution} pixels: its builder returned {found.name!r} at {found.resolution}"
        )
    for layer, key, value, allowed in _facts(found):
        if value != allowed:
            raise ConfigError(f"backbone {name!r}: layer {layer}: {key}: found {value!r}; allowed: {allowed!r}")
    return found


def _facts(graph: LayerGraph) -> Iterator[tuple[int, str, object, object]]:
    """Yield (position, key, what is there, what has to be) of every layer."""
    channels, size, block = IMAGE_CHANNELS, graph.resolution, -1
    opened: ConvLayer | None = None
    for position, layer in enumerate(graph.layers):
        if opened is None or layer.block != opened.block:
            opened = layer
        yield position, "index", layer.index, position
        yield position, "block", layer.block, max(layer.block, block)
        yield position, "in_channels", layer.in_channels, channels
        yield position, "in_size", layer.in_size, size
        yield position, "out_size", layer.out_size, -(-layer.in_size // layer.stride)
        yield position, "kernel (odd)", layer.kernel % 2, 1
        yield position, "groups", layer.groups, layer.in_channels if layer.role == "depthwise" else 1
        if layer.role == "depthwise":
            yield position, "out_channels", layer.out_channels, layer.in_channels
        if layer.residual_after:
            before, after = (opened.in_channels, opened.in_size), (layer.out_channels, layer.out_size)
            yield position, "residual_after adds (channels, pixels)", before, after
        channels, size, block = layer.out_channels, layer.out_size, layer.block
