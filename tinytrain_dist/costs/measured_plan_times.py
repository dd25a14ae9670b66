"""The measured forms of ``phase_amounts`` for many plans at once; equal, plan by plan, to the sums there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.costs.phase_amounts import slice_counts
from tinytrain_dist.costs.plan_arrays import Flags, Ints, PlanArrays
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph

Floats = NDArray[np.float64]
_NS_PER_MS = 1e6


def measured_weight_grads(graph: LayerGraph, plans: PlanArrays, coefficients: Mapping[str, float]) -> Floats:
    """Return the milliseconds of weight, bias and scale gradients of one image, ``[num_plans]``."""
    summed = plans.bias | plans.scale
    touched = (plans.weights > 0) | summed
    total = touched.any(axis=1) * coefficients.get("passes", 0.0)
    for layer in graph.layers:
        index = layer.index
        weights, scale = plans.weights[:, index], plans.scale[:, index]
        share = np.where(scale, 1.0, weights / layer.weights)
        computed = (weights > 0) | scale
        elements, gathered = _touched(layer, weights, plans.kept_inputs[:, index], scale)
        counts = slice_counts(layer, share=share, elements=elements, gathered=gathered, partial=gathered > 0)
        total += computed * sum(coefficients.get(name, 0.0) * values for name, values in counts.items())
        total += (summed[:, index] & ~computed) * coefficients.get("ops", 0.0)
        total += summed[:, index] * layer.output_elements * coefficients.get("activations_summed", 0.0)
    return np.asarray(total / _NS_PER_MS, np.float64)


def _touched(layer: ConvLayer, weights: Ints, kept: Ints, scale: Flags) -> tuple[Ints, Ints]:
    """Return the elements a weight gradient reads, and those copied to use some channels (``update_amounts``)."""
    whole = np.full_like(weights, layer.input_elements + layer.output_elements)
    if layer.groups > 1 and layer.channels_per_group > 1:
        return whole, np.zeros_like(weights)
    partial = (weights > 0) & (weights < layer.weights) & ~scale
    inputs = kept // layer.in_size**2
    if layer.groups > 1:
        touched = inputs * (layer.in_size**2 + layer.out_size**2)
        return np.where(partial, touched, whole), touched * partial
    outputs = weights // (layer.channels_per_group * layer.kernel**2)
    by_input = inputs < layer.in_channels
    used_in, used_out = inputs * layer.in_size**2, outputs * layer.out_size**2
    touched = np.where(by_input, used_in + layer.output_elements, layer.input_elements + used_out)
    return np.where(partial, touched, whole), np.where(by_input, used_in, used_out) * partial


def measured_optimizer(
    graph: LayerGraph, plans: PlanArrays, coefficients: Mapping[str, float], *, words: float
) -> Floats:
    """Return the milliseconds of one optimizer step, ``[num_plans]``; ``words``: state touched, relative to Adam's."""
    touched = (plans.weights > 0) | plans.bias | plans.scale
    rewritten = touched @ np.array([layer.weights for layer in graph.layers], np.int64)
    counts = {
        "passes": touched.any(axis=1) | plans.adapters.any(axis=1),
        "ops": touched.sum(axis=1),
        "weights": words * plans.weights.sum(axis=1),
        "weights_rewritten": rewritten,
    }
    total = sum((values * coefficients.get(name, 0.0) for name, values in counts.items()), np.zeros(len(touched)))
    return np.asarray(total / _NS_PER_MS, np.float64)
