"""What each phase of a training step is priced by where the phase itself was measured: counts, named, additive.

A backward pass is not a forward pass at another rate: masks, gathered channels and strided gradients cost what no
forward MAC tells. A profile whose device was measured (``tinytrain measure``) holds nanoseconds per count and phase.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinytrain_dist.graphs.adapters import LiteResidual, lite_residuals
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, side_channels, update_weights

MEASURED_PHASES = ("input_grad", "weight_grad", "adapters", "fisher", "optimizer", "load")
TOTALS = (
    "macs_conv", "macs_pointwise", "macs_depthwise", "weights", "activations_in_out", "ops",
)  # fmt: skip
_OF_ANY_PHASE = (
    "activations_depthwise", "activations_strided", "activations_masked", "activations_gathered",
    "activations_summed", "activations_module", "weights_rewritten", "passes",
)  # fmt: skip
"""Elements in and out of depthwise layers, and of strided depthwise layers; elements that pass a ReLU6 mask; copied to
keep or use some channels only; reduced to one number per channel (bias gradients, Fisher information); in and out of
blocks with a lite residual module; weights of touched layers, rewritten after a step; 1 for a pass of a whole network,
0 for a layer by itself."""
_OF_WEIGHT_GRADS = ("activations_dense", "activations_wide", "ops_narrow", "ops_wide", "ops_partial")
"""By the kernel that runs: elements in and out of layers that are not depthwise, and of depthwise layers wider than
3x3; layers with a 3x3 depthwise kernel, with a wider one, and with only some of their channels updated."""
FURTHER = (*_OF_ANY_PHASE, *_OF_WEIGHT_GRADS)
AMOUNTS = (*TOTALS, *FURTHER)
_NARROW_KERNEL = 3
_BY_PHASE = {
    "weight_grad": (
        "macs_conv", "macs_pointwise", "macs_depthwise", "weights", "ops", "activations_dense", "activations_wide",
        "activations_strided", "activations_gathered", "activations_summed", "ops_narrow", "ops_wide", "ops_partial",
        "passes",
    ),
    "load": ("passes", "weights"),
}  # fmt: skip

Amounts = dict[str, float]


def amounts_of(phase: str) -> tuple[str, ...]:
    """Return the counts a measured phase is priced by."""
    return _BY_PHASE.get(phase, (*TOTALS, *_OF_ANY_PHASE))


def added(parts: Iterable[Mapping[str, float]]) -> Amounts:
    """Return the sum of ``parts``."""
    total = dict.fromkeys(AMOUNTS, 0.0)
    for part in parts:
        for name, value in part.items():
            total[name] += value
    return total


def nanoseconds(coefficients: Mapping[str, float], amounts: Mapping[str, float]) -> float:
    """Return the time of ``amounts`` at so many nanoseconds each."""
    return sum(value * amounts.get(name, 0.0) for name, value in coefficients.items())


def layer_amounts(layer: ConvLayer) -> Amounts:
    """Return the counts of one pass through ``layer``."""
    elements = layer.input_elements + layer.output_elements
    is_depthwise = layer.role == "depthwise"
    macs = "macs_depthwise" if is_depthwise else "macs_pointwise" if layer.kernel == 1 else "macs_conv"
    return {
        macs: float(layer.macs),
        "weights": float(layer.weights),
        "activations_in_out": elements,
        "activations_depthwise": elements * is_depthwise,
        "activations_strided": elements * (is_depthwise and layer.stride > 1),
        "ops": 1.0,
    }


def forward_amounts(graph: LayerGraph) -> Amounts:
    """Return the counts of a forward pass."""
    return added([{"passes": 1.0}, *(layer_amounts(layer) for layer in graph.layers)])


def input_grad_amounts(layer: ConvLayer) -> Amounts:
    """Return the counts of a layer's input gradient, with the mask of its activation."""
    return layer_amounts(layer) | {"activations_masked": float(layer.output_elements * layer.has_activation)}


def chain_amounts(graph: LayerGraph, start: int) -> Amounts:
    """Return the counts of the input gradients of all layers after ``start``; of ``start`` the mask alone."""
    first = graph.layer(start)
    mask = {"passes": 1.0, "activations_masked": float(first.output_elements * first.has_activation)}
    return added([mask, *(input_grad_amounts(layer) for layer in graph.layers[start + 1 :])])


def gathered_elements(update: LayerUpdate, layer: ConvLayer, *, has_scale: bool = False) -> int:
    """Return the elements copied because only some channels of ``layer`` are updated."""
    is_depthwise = layer.groups > 1
    if update.channels is None or has_scale or (is_depthwise and layer.channels_per_group > 1):
        return 0
    count = len(update.channels)
    if count == side_channels(layer, update.side):
        return 0
    if is_depthwise:
        return count * (layer.in_size**2 + layer.out_size**2)
    return count * (layer.in_size**2 if update.side == "input" else layer.out_size**2)


def update_amounts(layer: ConvLayer, update: LayerUpdate | None = None, *, has_scale: bool = False) -> Amounts:
    """Return the counts of a layer's weight gradient: of all weights, or of those of ``update`` alone."""
    inputs, outputs, share = layer.input_elements, layer.output_elements, 1.0
    gathered = 0 if update is None else gathered_elements(update, layer, has_scale=has_scale)
    if update is not None and not has_scale:
        share = update_weights(update, layer) / layer.weights
    if gathered and update is not None and update.channels is not None:
        count, is_depthwise = len(update.channels), layer.groups > 1
        if is_depthwise or update.side == "input":
            inputs = count * layer.in_size**2
        if is_depthwise or update.side == "output":
            outputs = count * layer.out_size**2
    return slice_counts(layer, share=share, elements=inputs + outputs, gathered=gathered, partial=float(gathered > 0))


def slice_counts(layer: ConvLayer, *, share: Any, elements: Any, gathered: Any, partial: Any) -> dict[str, Any]:
    """Return the counts of the gradient of a slice of ``layer``'s weights; numbers, or vectors over plans."""
    is_depthwise = layer.role == "depthwise"
    is_wide = is_depthwise and layer.kernel > _NARROW_KERNEL
    macs = "macs_depthwise" if is_depthwise else "macs_pointwise" if layer.kernel == 1 else "macs_conv"
    return {
        macs: share * layer.macs, "weights": share * layer.weights, "ops": 1.0,
        "activations_in_out": elements,
        "activations_depthwise": elements * is_depthwise,
        "activations_dense": elements * (not is_depthwise),
        "activations_wide": elements * is_wide,
        "activations_strided": elements * (is_depthwise and layer.stride > 1),
        "activations_gathered": gathered,
        "ops_narrow": float(is_depthwise and not is_wide), "ops_wide": float(is_wide), "ops_partial": partial,
    }  # fmt: skip


def weight_grad_amounts(graph: LayerGraph, plan: UpdatePlan) -> Amounts:
    """Return the counts of the weight, bias and scale gradients of ``plan``; a scale needs the whole weight's."""
    scales, biases = set(plan.scale_layers), {*plan.bias_layers, *plan.scale_layers}
    parts: list[Mapping[str, float]] = [{"passes": 1.0}]
    updated = {update.layer for update in plan.updates}
    for update in plan.updates:
        parts.append(update_amounts(graph.layer(update.layer), update, has_scale=update.layer in scales))
    parts += [update_amounts(graph.layer(index)) for index in sorted(scales - updated)]
    parts += [{"ops": 1.0} for _ in biases - updated - scales]
    parts += [{"activations_summed": float(graph.layer(index).output_elements)} for index in sorted(biases)]
    return added(parts)


def adapter_amounts(module: LiteResidual) -> Amounts:
    """Return the counts of one lite residual module, forward and backward together."""
    size = module.in_channels * module.in_size**2 + module.out_channels * module.out_size**2
    parts = [layer_amounts(layer) | {"ops": 0.0} for layer in module.convolutions]
    return added([*parts, {"ops": 1.0, "activations_module": float(size)}])


def fisher_amounts(graph: LayerGraph, inspected: Sequence[int]) -> Amounts:
    """Return the counts of the pass that measures Fisher information: forward, chain, sums."""
    sums = {"activations_summed": float(sum(graph.layer(index).output_elements for index in inspected))}
    total = added([forward_amounts(graph), chain_amounts(graph, min(inspected)), sums])
    return total | {"passes": 1.0}


def load_amounts(graph: LayerGraph, plan: UpdatePlan) -> Amounts:
    """Return the counts of loading a network and the modules of ``plan``: one file, its parameters."""
    modules = sum(module.parameters for module in lite_residuals(graph, plan.adapters))
    return {"passes": 1.0, "weights": float(graph.parameters + modules)}


def optimizer_amounts(graph: LayerGraph, plan: UpdatePlan) -> Amounts:
    """Return the counts of one optimizer step; touched layers are folded with their normalisation anew."""
    touched = {*(u.layer for u in plan.updates), *plan.bias_layers, *plan.scale_layers}
    return added([{
        "passes": 1.0,
        "ops": float(len(touched)),
        "weights": float(sum(update_weights(u, graph.layer(u.layer)) for u in plan.updates)),
        "weights_rewritten": float(sum(graph.layer(index).weights for index in touched)),
    }])  # fmt: skip
