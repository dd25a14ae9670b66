"""What a plan really has to keep between forward and backward: slices, not whole inputs."""

from __future__ import annotations

from tinytrain_dist.costs.counters import check_batch
from tinytrain_dist.graphs.adapters import LiteResidual, lite_residuals
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, num_selected


def saved_exact_bytes(
    graph: LayerGraph, plan: UpdatePlan, *, batch: int = 1, bytes_per_element: int = 4, mask_bits: int = 1
) -> int:
    """Return the bytes ``plan`` keeps: input slices of updated layers, masks, inputs of scale layers.

    Parameters
    ----------
    mask_bits
        Width of one element of an activation mask as stored: 1 packed, 8 where a runtime keeps one byte each.

    Notes
    -----
    The gradient of a weight needs the input channels it multiplies: the selected ones for the input side and for
    depthwise layers, all of them for the output side of any other layer. The gradient of a bias needs no input.
    That of a scale comes from the gradient of the whole folded weight, which needs the whole input, once.
    Every ReLU6 from the first touched layer on keeps its mask. At most the paper's upper bound
    (``saved_activation_bytes``) when no scale is updated and no bias before the first updated weight.
    A lite residual module keeps the inputs of its convolutions, its normalised outputs and its mask.
    """
    check_batch(batch)
    start = plan.check(graph).earliest_layer
    if start is None:
        return 0
    modules = lite_residuals(graph, plan.adapters)
    whole = set(plan.scale_layers)
    inputs = sum(input_slice_elements(u, graph.layer(u.layer)) for u in plan.updates if u.layer not in whole)
    inputs += sum(graph.layer(index).input_elements for index in whole)
    inputs += sum(module_kept_elements(module) for module in modules)
    masks = sum(layer.output_elements for layer in graph.layers[start:] if layer.has_activation)
    masks += sum(module.convolutions[0].output_elements for module in modules)
    return batch * inputs * bytes_per_element + -(-batch * masks * mask_bits // 8)


def module_kept_elements(module: LiteResidual) -> int:
    """Return the elements a module keeps besides its mask: inputs of its convolutions, normalised outputs."""
    return sum(layer.input_elements + layer.output_elements for layer in module.convolutions)


def input_slice_elements(update: LayerUpdate, layer: ConvLayer) -> int:
    """Return the input elements of one image that the weight gradient of ``update`` multiplies."""
    by_channel = update.side == "input" or layer.channels_per_group == 1
    return (num_selected(update, layer) if by_channel else layer.in_channels) * layer.in_size**2
