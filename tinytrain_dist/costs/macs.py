"""Multiply-accumulates of one image: forward, backward of a plan, Fisher pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinytrain_dist.graphs.adapters import LiteResidual, lite_residuals
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, update_weights, updated_weights

Chain = Literal["weights", "everything"]


@dataclass(frozen=True, kw_only=True)
class Macs:
    """MACs of one image, convolutions only."""

    forward: int
    input_grad: int
    weight_grad: int

    @property
    def backward(self) -> int:
        """Input gradients plus weight gradients."""
        return self.input_grad + self.weight_grad


def chain_start(plan: UpdatePlan, *, chain: Chain = "weights") -> int | None:
    """Return the layer at which the backward pass stops; ``None`` when nothing is updated.

    ``weights`` is the paper's counter: layers where only a bias changes do not extend the chain (unless nothing
    but biases changes); adapters are weights. ``everything`` is what a device really has to run.
    """
    weights = [*(update.layer for update in plan.updates[:1]), *plan.adapters[:1]]
    return min(weights) if chain == "weights" and weights else plan.earliest_layer


def updates_all_weights(graph: LayerGraph, plan: UpdatePlan) -> bool:
    """Return whether every convolution weight of the network is updated."""
    return updated_weights(plan, graph) == graph.weights


def plan_macs(graph: LayerGraph, plan: UpdatePlan, *, chain: Chain = "weights") -> Macs:
    """Return the MACs of one image under ``plan``.

    Input gradients: forward MACs of the layers strictly after the start of the chain. Weight gradients: the
    updated share of each updated layer's forward MACs. A plan of all weights costs 2 x forward, the stem's input
    gradient included (TinyTrain, arXiv 2307.09988, Table 2). Adapters add their forward, weight gradients and the
    input gradients the chain needs.
    """
    plan.check(graph)
    modules = lite_residuals(graph, plan.adapters)
    added = sum(module.macs for module in modules)
    forward = graph.forward_macs + added
    if updates_all_weights(graph, plan):
        return Macs(forward=forward, input_grad=forward, weight_grad=forward)
    start = chain_start(plan, chain=chain)
    if start is None:
        return Macs(forward=forward, input_grad=0, weight_grad=0)
    input_grad = sum(layer.macs for layer in graph.layers[start + 1 :])
    weight_grad = sum(
        update_weights(update, graph.layer(update.layer)) * graph.layer(update.layer).out_size ** 2
        for update in plan.updates
    )
    return Macs(
        forward=forward,
        input_grad=input_grad + sum(adapter_input_grad_macs(graph, module, start) for module in modules),
        weight_grad=weight_grad + added,
    )


def passes_gradient(graph: LayerGraph, module: LiteResidual, start: int) -> bool:
    """Return whether the chain goes on before the module's block, so that the module's own input needs a gradient."""
    return graph.block_layers(module.block)[0].index > start


def adapter_input_grad_macs(graph: LayerGraph, module: LiteResidual, start: int) -> int:
    """Return the input-gradient MACs of one module; the second convolution always needs them."""
    return module.macs if passes_gradient(graph, module, start) else module.convolutions[1].macs


def fisher_macs(graph: LayerGraph, inspected: Sequence[int]) -> int:
    """Return the MACs of one image in the pass that measures Fisher information; 0 when nothing is inspected.

    Forward, input gradients back to the output of the first inspected layer, and one MAC per output element of
    the inspected layers for the sum of activation x gradient. No weight gradients.
    """
    if not inspected:
        return 0
    layers = [graph.layer(index) for index in inspected]
    chain = sum(layer.macs for layer in graph.layers[min(inspected) + 1 :])
    return graph.forward_macs + chain + sum(layer.output_elements for layer in layers)
