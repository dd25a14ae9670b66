"""The measured forms of ``phase_amounts`` for many plans at once; equal, plan by plan, to the sums there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.costs.phase_amounts import layer_amounts, nanoseconds
from tinytrain_dist.costs.plan_arrays import Flags, Ints, PlanArrays
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph

Floats = NDArray[np.float64]
_NS_PER_MS = 1e6
_PER_SHARE = ("macs_conv", "macs_pointwise", "macs_depthwise", "weights")


def measured_weight_grads(graph: LayerGraph, plans: PlanArrays, coefficients: Mapping[str, float]) -> Floats:
    """Return the milliseconds of weight, bias and scale gradients of one image, ``[num_plans]``."""
    summed = plans.bias | plans.scale
    touched = (plans.weights > 0) | summed
    total = touched.any(axis=1) * coefficients.get("passes", 0.0)
    for layer in graph.layers:
        index = layer.index
        weights, scale = plans.weights[:, index], plans.scale[:, index]
        counts = layer_amounts(layer)
        whole = nanoseconds(coefficients, counts)
        per_share = nanoseconds(coefficients, {name: counts.get(name, 0.0) for name in _PER_SHARE})
        share = np.where(scale, 1.0, weights / layer.weights)
        computed = (weights > 0) | scale
        total += computed * (whole - (1 - share) * per_share)
        total += (summed[:, index] & ~computed) * coefficients.get("ops", 0.0)
        total += summed[:, index] * layer.output_elements * coefficients.get("activations_summed", 0.0)
        gathered = _gathered(layer, weights, plans.kept_inputs[:, index], scale)
        total += gathered * coefficients.get("activations_gathered", 0.0)
    return np.asarray(total / _NS_PER_MS, np.float64)


def _gathered(layer: ConvLayer, weights: Ints, kept: Ints, scale: Flags) -> Ints:
    """Return the elements copied to use some channels (``phase_amounts.gathered_elements``)."""
    if layer.groups > 1 and layer.channels_per_group > 1:
        return np.zeros_like(weights)
    partial = (weights > 0) & (weights < layer.weights) & ~scale
    inputs = kept // layer.in_size**2 * partial
    if layer.groups > 1:
        return inputs * (layer.in_size**2 + layer.out_size**2)
    outputs = weights // (layer.channels_per_group * layer.kernel**2)
    by_input = inputs < layer.in_channels
    return np.where(by_input, inputs * layer.in_size**2, outputs * layer.out_size**2) * partial


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
