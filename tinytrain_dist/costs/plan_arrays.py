"""Many update plans of one network as matrices ``[num_plans, num_layers]``: what the vectorised counters read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.costs.saved_exact import input_slice_elements
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, update_weights

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class PlanArrays:
    """Per plan and layer; ``start`` per plan.

    Attributes
    ----------
    kept_inputs
        Input elements of one image kept for the layer's weight gradient, or whole for that of its scale.
    weights
        Updated weights.
    bias, scale
        Whether the normalisation's shift (bias) or scale changes.
    copies
        Whether the layer's own output is kept besides: its Fisher information is measured.
    adapters
        Whether a lite residual module ends at the layer.
    start
        First layer where anything changes; ``num_layers`` when nothing does.
    """

    kept_inputs: Ints
    weights: Ints
    bias: Flags
    scale: Flags
    copies: Flags
    adapters: Flags
    start: Ints

    def chunks(self, size: int) -> Iterator[PlanArrays]:
        """Yield the plans in runs of ``size``, so that temporary matrices stay small."""
        for first in range(0, len(self.start), size):
            yield PlanArrays(**{f.name: getattr(self, f.name)[first : first + size] for f in fields(self)})


def plan_arrays(graph: LayerGraph, plans: Sequence[UpdatePlan]) -> PlanArrays:
    """Return ``plans`` as matrices; the caller has checked that they belong to ``graph``."""
    shape = (len(plans), len(graph.layers))
    kept, weights = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    bias, scale, copies, adapters = (np.zeros(shape, np.bool_) for _ in range(4))
    start = np.full(len(plans), len(graph.layers), np.int64)
    for row, plan in enumerate(plans):
        for update in plan.updates:
            layer = graph.layers[update.layer]
            kept[row, update.layer] = input_slice_elements(update, layer)
            weights[row, update.layer] = update_weights(update, layer)
        for index in plan.scale_layers:
            kept[row, index] = graph.layers[index].input_elements
        for flags, chosen in ((bias, plan.bias_layers), (scale, plan.scale_layers), (adapters, plan.adapters)):
            if chosen:
                flags[row, list(chosen)] = True
        first = plan.earliest_layer
        if first is not None:
            start[row] = first
    return PlanArrays(
        kept_inputs=kept, weights=weights, bias=bias, scale=scale, copies=copies, adapters=adapters, start=start
    )


def fisher_arrays(graph: LayerGraph, inspected: Sequence[int]) -> PlanArrays:
    """Return what the pass that measures Fisher information keeps: the output of every inspected layer, whole.

    The output of a layer is the next one's input, except where a residual is added to it in place.
    """
    num_layers = len(graph.layers)
    kept = np.zeros((1, num_layers), np.int64)
    copies, none = np.zeros((1, num_layers), np.bool_), np.zeros((1, num_layers), np.bool_)
    for index in inspected:
        if graph.layer(index).residual_after or index + 1 == num_layers:
            copies[0, index] = True
        else:
            kept[0, index + 1] = graph.layers[index + 1].input_elements
    start = np.array([min(inspected, default=num_layers)])
    return PlanArrays(
        kept_inputs=kept, weights=np.zeros_like(kept), bias=none, scale=none, copies=copies, adapters=none, start=start
    )
