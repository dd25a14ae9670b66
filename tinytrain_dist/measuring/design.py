"""Which shapes and plans are measured: drawn from the backbones by a seed, with shapes off their grid besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.graphs.adapters import adapter_plan
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph, Role
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan
from tinytrain_dist.measuring.cases import Case
from tinytrain_dist.measuring.layer_cases import layer_cases, layer_name
from tinytrain_dist.measuring.settings import MeasureSettings
from tinytrain_dist.measuring.step_cases import StepCases

OFF_GRID = "off_grid"
MIN_MACS = 20_000
"""Below, a row says what a launch costs and nothing else."""
NUM_PLANS = 5
FISHER_BLOCKS = (3, 6)
_RATIOS = (0.125, 0.25, 0.5, 1.0)


def designed_cases(settings: MeasureSettings, folder: Path) -> list[Case]:
    """Return every case of a measurement, in the order in which they run."""
    cases = [
        case
        for layer, family in layer_shapes(settings)
        for case in layer_cases(layer, family=family, batch=settings.batch)
    ]
    for backbone in settings.backbones:
        for resolution in settings.resolutions:
            cases += network_cases(backbone, resolution, settings, folder)
    order = generator_of("measure order", settings.seed).permutation(len(cases))
    return [cases[index] for index in order]


def layer_shapes(settings: MeasureSettings) -> list[tuple[ConvLayer, str]]:
    """Return layers with the family they belong to: the backbone they come from, or ``off_grid``."""
    known: dict[str, tuple[ConvLayer, str]] = {}
    for backbone in settings.backbones:
        for resolution in settings.resolutions:
            for layer in layer_graph(backbone, resolution).layers:
                if layer.macs >= MIN_MACS:
                    known.setdefault(layer_name(layer), (layer, backbone))
    draw = generator_of("measure layers", settings.seed)
    names = sorted(known)
    chosen = draw.permutation(len(names))[: settings.num_layers]
    return [known[names[index]] for index in sorted(chosen)] + _off_grid(settings.num_layers // 4, draw)


def _off_grid(count: int, draw: np.random.Generator) -> list[tuple[ConvLayer, str]]:
    found: dict[str, tuple[ConvLayer, str]] = {}
    roles: tuple[Role, ...] = ("expand", "depthwise", "project", "stem")
    while len(found) < count:
        layer = _odd_layer(roles[len(found) % len(roles)], draw)
        if layer.macs >= MIN_MACS:
            found.setdefault(layer_name(layer), (layer, OFF_GRID))
    return list(found.values())


def _odd_layer(role: Role, draw: np.random.Generator) -> ConvLayer:
    """Return a layer of channels and sizes no backbone uses."""
    narrow, wide = int(draw.integers(11, 70)), int(draw.integers(60, 420))
    inner, outer = {
        "expand": (narrow, wide), "project": (wide, narrow), "depthwise": (wide, wide), "stem": (3, narrow)
    }[role]  # fmt: skip
    kernel = {"stem": 3, "depthwise": int(draw.choice([3, 5, 7]))}.get(role, 1)
    stride = 2 if role == "stem" else int(draw.choice([1, 1, 2])) if role == "depthwise" else 1
    size = int(draw.integers(5, 37)) * (3 if role == "stem" else 1)
    return ConvLayer(
        index=0, block=0, role=role, in_channels=inner, out_channels=outer, kernel=kernel, stride=stride,
        groups=inner if role == "depthwise" else 1, in_size=size, out_size=-(-size // stride), residual_after=False,
    )  # fmt: skip


def network_cases(backbone: str, resolution: int, settings: MeasureSettings, folder: Path) -> Iterator[Case]:
    """Yield the cases of one network's whole steps."""
    steps = StepCases(backbone, resolution, batch=settings.batch)
    graph = steps.graph
    yield steps.forward()
    yield steps.load(folder)
    for share in (0.0, 0.3, 0.6, 0.85):
        yield steps.input_grad(int(share * len(graph.layers)))
    for blocks in FISHER_BLOCKS:
        yield steps.fisher(graph.last_blocks(blocks))
    plans = [random_plan(graph, ("measure", settings.seed, number)) for number in range(NUM_PLANS)]
    for plan in (
        *plans,
        with_biases(plans[0], graph),
        last_blocks_plan(graph, 0),
        last_blocks_plan(graph, 2),
        full_plan(graph),
    ):
        yield steps.weight_grad(plan)
        yield steps.optimizer(plan)
    for share in (0.2, 0.6):
        yield steps.adapters(adapter_plan(graph, dropped_share=share))


def random_plan(graph: LayerGraph, seed: tuple[str | int, ...]) -> UpdatePlan:
    """Return a sparse plan: some layers from a random depth on, each with a random share of its channels."""
    draw = generator_of("random plan", graph.name, *seed)
    first = int(draw.integers(0, len(graph.layers) - 1))
    last = graph.layers[first:]
    count = int(draw.integers(1, min(8, len(last)) + 1))
    indices = sorted(draw.choice([layer.index for layer in last], size=count, replace=False).tolist())
    updates = tuple(_update(graph.layer(index), float(draw.choice(_RATIOS)), draw) for index in indices)
    return UpdatePlan(backbone=graph.name, updates=updates)


def _update(layer: ConvLayer, ratio: float, draw: np.random.Generator) -> LayerUpdate:
    if ratio == 1.0:
        return LayerUpdate(layer=layer.index)
    count = max(1, round(ratio * layer.out_channels))
    channels = tuple(sorted(draw.choice(layer.out_channels, size=count, replace=False).tolist()))
    return LayerUpdate(layer=layer.index, channels=channels)


def last_blocks_plan(graph: LayerGraph, blocks: int) -> UpdatePlan:
    """Return the plan of all weights of the last ``blocks`` blocks (and the mix layer), of the last layer at least."""
    layers = graph.last_blocks(blocks) or (len(graph.layers) - 1,)
    return UpdatePlan(backbone=graph.name, updates=tuple(LayerUpdate(layer=index) for index in layers))


def with_biases(plan: UpdatePlan, graph: LayerGraph) -> UpdatePlan:
    """Return ``plan`` with the biases of the last half of the layers."""
    last = tuple(layer.index for layer in graph.layers[len(graph.layers) // 2 :])
    return UpdatePlan(backbone=graph.name, updates=plan.updates, bias_layers=last)
