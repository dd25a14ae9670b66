"""Single layers: forward, input gradient, weight gradient of all and of some channels, by the kernels a step uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.backbones.compiled import masked_, relu6_mask, select_channels
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.kernels import convolve, input_gradient, weight_gradient
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.costs.phase_amounts import Amounts, input_grad_amounts, layer_amounts, update_amounts
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan
from tinytrain_dist.measuring.cases import Case, Run

SLICES = (0.25, 0.5)


def layer_cases(layer: ConvLayer, *, family: str, batch: int) -> Iterator[Case]:
    """Yield the cases of one layer shape."""
    name = layer_name(layer)

    def case(phase: str, suffix: str, amounts: Amounts, build: Callable[[], tuple[Run, ...]]) -> Case:
        return Case(
            phase=phase, model=f"{name}{suffix}", family=family, resolution=layer.in_size,
            amounts=amounts, build=build,
        )  # fmt: skip

    yield case("forward", "", layer_amounts(layer), partial(_forward, layer, batch))
    yield case("input_grad", "", input_grad_amounts(layer), partial(_input_grad, layer, batch))
    yield case("weight_grad", "", update_amounts(layer), partial(_weight_grad, layer, batch, layer.out_channels))
    for ratio in SLICES:
        channels = max(1, round(ratio * layer.out_channels))
        update = LayerUpdate(layer=layer.index, channels=tuple(range(channels)))
        amounts = update_amounts(layer, update)
        yield case("weight_grad", f"-c{channels}", amounts, partial(_weight_grad, layer, batch, channels))


def layer_name(layer: ConvLayer) -> str:
    """Return the shape in words: ``expand-16x96-k1s1-56px``."""
    shape = f"{layer.in_channels}x{layer.out_channels}-k{layer.kernel}s{layer.stride}"
    return f"{layer.role}-{shape}-{layer.in_size}px"


def _images(layer: ConvLayer, batch: int, *, output: bool) -> Tensor:
    channels, size = (layer.out_channels, layer.out_size) if output else (layer.in_channels, layer.in_size)
    generator = torch.Generator().manual_seed(channels * 1000 + size)
    images = torch.randn((batch, channels, size, size), generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def _alone(layer: ConvLayer) -> tuple[ConvLayer, FoldedNetwork]:
    only = replace(layer, index=0, block=0, residual_after=False)
    graph = LayerGraph(name="one_layer", resolution=layer.in_size, layers=(only,))
    return only, FoldedNetwork(build_backbone(graph))


def _forward(layer: ConvLayer, batch: int) -> tuple[Run, ...]:
    only, network = _alone(layer)
    weight, bias = network.layers[0]
    x = _images(layer, batch, output=False)

    @torch.no_grad()
    def run() -> Tensor:
        return convolve(x, weight, bias, layer=only)

    return (run,)


def _input_grad(layer: ConvLayer, batch: int) -> tuple[Run, ...]:
    """Mask of the forward pass, mask of the gradient, input gradient."""
    only, network = _alone(layer)
    weight = network.layers[0][0]
    x, out = _images(layer, batch, output=False), _images(layer, batch, output=True)
    of_output = out.clone(memory_format=torch.channels_last)

    @torch.no_grad()
    def run() -> Tensor:
        grad = masked_(of_output, relu6_mask(out)) if only.has_activation else of_output
        return input_gradient(grad, weight, layer=only, in_shape=x.shape)

    return (run,)


def _weight_grad(layer: ConvLayer, batch: int, channels: int) -> tuple[Run, ...]:
    only, network = _alone(layer)
    chosen = None if channels == layer.out_channels else tuple(range(channels))
    weights = PlanWeights(network, UpdatePlan(backbone="one_layer", updates=(LayerUpdate(layer=0, channels=chosen),)))
    x, grad = _images(layer, batch, output=False), _images(layer, batch, output=True)
    inputs, outputs = weights.input_channels(0), weights.output_channels(0)
    flat = torch.zeros_like(weights.values)

    @torch.no_grad()
    def run() -> None:
        kept = x if inputs is None else select_channels(x, inputs)
        wanted = grad if outputs is None else select_channels(grad, outputs)
        weights.add_gradient(flat, 0, weight=weight_gradient(wanted, kept, layer=only), bias=None)

    return (run,)
