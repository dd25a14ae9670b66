"""MACs of a running step, counted by torch, against the MAC counter.

The hand-written pass runs in float64, where every product is an operation torch's counter knows. Two corrections:
torch counts the weight gradient of a grouped convolution once per group too often, and nobody computes the stem's
input gradient, which FullTrain's 2 x forward includes.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tinytrain_dist.adaptation import sparse_pass
from tinytrain_dist.adaptation.fine_tuning import pass_start
from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.adaptation.sparse_pass import SparsePass
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import Backbone, LayerState, build_backbone
from tinytrain_dist.costs.macs import plan_macs, updates_all_weights
from tinytrain_dist.costs.static_plans import static_plan
from tinytrain_dist.graphs.adapters import lite_residuals
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, side_channels

BACKBONES = ("mcunet", "mobilenet_v2", "proxylessnas")
RESOLUTION = 48
NUM_IMAGES = 2


def half(graph: LayerGraph, *layers: int, side: Any = "output") -> UpdatePlan:
    """Return the plan of every other channel of some layers, counted from the last."""
    updates = []
    for index in sorted(len(graph.layers) - i for i in layers):
        channels = tuple(range(0, side_channels(graph.layer(index), side), 2))
        updates.append(LayerUpdate(layer=index, channels=channels, side=side))
    return UpdatePlan(backbone=graph.name, updates=tuple(updates))


PLANS: dict[str, Callable[[LayerGraph], UpdatePlan]] = {
    "last_layer": lambda graph: static_plan("last_layer", graph).plan,
    "sparse_update": lambda graph: static_plan("sparse_update", graph).plan,
    "full_train": lambda graph: static_plan("full_train", graph).plan,
    "output channels": lambda graph: half(graph, 1, 2, 3, 7, 8, 11, 17),
    "input channels": lambda graph: half(graph, 2, 3, 4, 12, 13, 19, side="input"),
    "biases": lambda graph: UpdatePlan(backbone=graph.name, bias_layers=(5, 9)),
}


def macs_of(run: Callable[[], Any]) -> tuple[int, Any]:
    """Return the MACs of one image torch counts while ``run`` runs, and its result."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    assert counter.get_total_flops() % (2 * NUM_IMAGES) == 0
    return counter.get_total_flops() // (2 * NUM_IMAGES), result


def counted_step(backbone: Backbone, plan: UpdatePlan, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Return MACs of the forward pass above the cut, of input gradients and of weight gradients."""
    network, start = FoldedNetwork(backbone), plan.earliest_layer
    assert start is not None
    state = network.run(LayerState(images_of(backbone)), stop=start)
    sparse = SparsePass(network, weights=PlanWeights(network, plan), start=start)
    sparse.refresh()
    found = {"input": 0, "weight": 0}
    true_weight_gradient, true_input_gradient = sparse_pass.weight_gradient, sparse_pass.input_gradient

    def weight_gradient(grad: Tensor, x: Tensor, *, layer: ConvLayer) -> Tensor:
        macs, result = macs_of(lambda: true_weight_gradient(grad, x, layer=layer))
        found["weight"] += macs // (grad.shape[1] if layer.groups > 1 else 1)
        return result  # type: ignore[no-any-return]

    def input_gradient(*tensors: Tensor, layer: ConvLayer, in_shape: torch.Size) -> Tensor:
        macs, result = macs_of(lambda: true_input_gradient(*tensors, layer=layer, in_shape=in_shape))
        found["input"] += macs
        return result  # type: ignore[no-any-return]

    monkeypatch.setattr(sparse_pass, "weight_gradient", weight_gradient)
    monkeypatch.setattr(sparse_pass, "input_gradient", input_gradient)
    forward, (features, tape) = macs_of(lambda: sparse.forward(state))
    everything, _ = macs_of(lambda: sparse.backward(tape, torch.ones_like(features)))
    assert everything >= found["input"], "the rest of the backward pass multiplies nothing"
    return forward, found["input"], found["weight"]


def images_of(backbone: Backbone) -> Tensor:
    size = backbone.graph.resolution
    return torch.rand(NUM_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("plan_name", PLANS)
def test_the_running_step_makes_the_products_that_are_counted(
    name: str, plan_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = layer_graph(name, RESOLUTION)
    plan = PLANS[plan_name](graph)
    forward, of_inputs, of_weights = counted_step(build_backbone(graph).double(), plan, monkeypatch)
    expected = plan_macs(graph, plan, chain="everything")
    start = plan.earliest_layer
    assert start is not None
    stem = graph.layers[0].macs if updates_all_weights(graph, plan) else 0
    assert forward == sum(layer.macs for layer in graph.layers[start:])
    assert of_inputs + stem == expected.input_grad
    assert of_weights == expected.weight_grad


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("method", ["tiny_tl", "adapter_drop_50"])
def test_lite_residual_modules_make_the_products_that_are_counted(name: str, method: str) -> None:
    graph = layer_graph(name, RESOLUTION)
    plan, network = static_plan(method, graph).plan, FoldedNetwork(build_backbone(graph).double())
    expected, modules, start = plan_macs(graph, plan), lite_residuals(graph, plan.adapters), pass_start(plan, graph)
    state = network.run(LayerState(images_of(network.backbone)), stop=start)
    sparse = SparsePass(network, weights=PlanWeights(network, plan), start=start, stop=plan.earliest_layer)
    sparse.measure_branches(state)
    sparse.refresh()
    forward, (features, tape) = macs_of(lambda: sparse.forward(state))
    backward, _ = macs_of(lambda: sparse.backward(tape, torch.ones_like(features)))
    groups = [module.convolutions[0] for module in modules]
    once_too_often = sum((layer.groups - 1) * layer.macs for layer in groups)
    assert forward == expected.forward - sum(layer.macs for layer in graph.layers[:start])
    assert backward - once_too_often == expected.backward


@pytest.mark.parametrize("name", BACKBONES)
def test_plain_autograd_over_the_whole_network_makes_the_products_that_are_counted(name: str) -> None:
    graph = layer_graph(name, RESOLUTION)
    backbone = build_backbone(graph).double()
    expected = plan_macs(graph, static_plan("full_train", graph).plan)
    forward, features = macs_of(lambda: backbone(images_of(backbone)))
    backward, _ = macs_of(lambda: features.sum().backward())
    once_too_often = sum((layer.groups - 1) * layer.macs for layer in graph.layers)
    assert forward == expected.forward
    assert backward - once_too_often + graph.layers[0].macs == expected.backward
