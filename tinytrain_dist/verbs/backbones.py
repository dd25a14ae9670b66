"""``tinytrain backbones [NAME]``: the networks, or one network's layer table. Needs no torch."""

from __future__ import annotations

from typing import Any

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.graphs.architectures import backbone_names, layer_graph
from tinytrain_dist.graphs.layer_graph import RESOLUTION_DEFAULT, ConvLayer, LayerGraph
from tinytrain_dist.verbs.arguments import VerbParser, print_json


def main(argv: list[str]) -> ExitCode:
    """List the backbones, or print the layers and totals of one."""
    parser = VerbParser(
        "backbones",
        description="List backbones, or one backbone's layer table with weights and MACs of one image.",
        example="tinytrain backbones mcunet --resolution 84",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a backbone; mobilenet_v2_w<width> takes any width")
    parser.add_argument(
        "--resolution", type=int, default=RESOLUTION_DEFAULT, metavar="PIXELS",
        help="height and width of the input image (default %(default)s)",
    )  # fmt: skip
    options = parser.parse(argv)
    if options.name is None:
        _print_all(options.resolution, as_json=options.json)
    else:
        _print_one(layer_graph(options.name, options.resolution), as_json=options.json)
    return ExitCode.DONE


def totals(graph: LayerGraph) -> dict[str, int]:
    """Return the sums over a graph: counts, weights, parameters, and MACs of one image."""
    return {
        "num_layers": len(graph.layers),
        "num_blocks": graph.num_blocks,
        "weights": graph.weights,
        "norm_parameters": graph.norm_parameters,
        "parameters": graph.parameters,
        "forward_macs": graph.forward_macs,
        "feature_channels": graph.feature_channels,
    }


def layer_row(layer: ConvLayer) -> dict[str, Any]:
    """Return one row of the layer table; shapes are [channels, height, width]."""
    return {
        "index": layer.index,
        "block": layer.block,
        "role": layer.role,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel": layer.kernel,
        "stride": layer.stride,
        "groups": layer.groups,
        "in_size": layer.in_size,
        "out_size": layer.out_size,
        "input_shape": [layer.in_channels, layer.in_size, layer.in_size],
        "output_shape": [layer.out_channels, layer.out_size, layer.out_size],
        "weights": layer.weights,
        "macs": layer.macs,
        "residual_after": layer.residual_after,
    }


def _print_all(resolution: int, *, as_json: bool) -> None:
    rows = [
        {"name": name, "resolution": resolution, **totals(layer_graph(name, resolution))} for name in backbone_names()
    ]
    if as_json:
        print_json(rows)
        return
    print(f"{'name':<22}{'layers':>7}{'blocks':>7}{'weights':>10}{'parameters':>11}{'forward MACs':>14}{'feature':>8}")
    for x in rows:
        print(
            f"{x['name']:<22}{x['num_layers']:>7}{x['num_blocks']:>7}{x['weights']:>10,}{x['parameters']:>11,}"
            f"{x['forward_macs']:>14,}{x['feature_channels']:>8}"
        )
    print(f"one image of {resolution} x {resolution} pixels; mobilenet_v2_w<width> takes any width")


def _print_one(graph: LayerGraph, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "name": graph.name,
                "resolution": graph.resolution,
                "architecture_hash": graph.architecture_hash,
                "layers": [layer_row(layer) for layer in graph.layers],
                "totals": totals(graph),
            }
        )
        return
    print(f"{graph.name} at {graph.resolution} x {graph.resolution} pixels")
    print(f"{'index':>5} {'block':>5} {'role':<10}{'input':>14}{'output':>14} {'kernel':>6} {'stride':>6}", end="")
    print(f"{'weights':>9}{'MACs':>12}  residual")
    for layer in graph.layers:
        print(_line(layer))
    for name, value in totals(graph).items():
        print(f"{name:<18}{value:>14,}")


def _line(x: ConvLayer) -> str:
    before, after = f"{x.in_channels}x{x.in_size}x{x.in_size}", f"{x.out_channels}x{x.out_size}x{x.out_size}"
    return (
        f"{x.index:>5} {x.block:>5} {x.role:<10}{before:>14}{after:>14} {x.kernel:>6} {x.stride:>6}"
        f"{x.weights:>9,}{x.macs:>12,}  {'added' if x.residual_after else ''}"
    ).rstrip()
