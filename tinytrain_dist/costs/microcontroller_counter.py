"""The int8 counter of MCUNetV3 (arXiv 2206.15472), whose scheme searches budget with it."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.costs.counters import check_batch
from tinytrain_dist.costs.saved_exact import input_slice_elements
from tinytrain_dist.graphs.adapters import lite_residuals
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, update_weights

BIAS_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class MicrocontrollerMemory:
    """Extra memory of sparse training of a batch at int8, in bytes, term by term."""

    mask_bytes: int
    bias_bytes: int
    weight_bytes: int
    input_bytes: int
    feature_bytes: int

    @property
    def total_bytes(self) -> int:
        """Sum of the terms."""
        return self.mask_bytes + self.bias_bytes + self.weight_bytes + self.input_bytes + self.feature_bytes


def microcontroller_memory(graph: LayerGraph, plan: UpdatePlan, *, batch: int = 1) -> MicrocontrollerMemory:
    """Return the MCUNetV3 counter of ``plan``.

    Every layer whose weights or bias change: a 1-bit mask per output element (projections too) and a 4-byte bias
    per channel. Where weights change: the selected weights and the input channels they read, 1 byte each. The
    input of the classifier: 1 byte per feature. Convolutions of lite residual modules count like updated layers.
    The rule is published for one image; masks, inputs and features are kept for each image of ``batch``.
    """
    check_batch(batch)
    plan.check(graph)
    touched = {u.layer for u in plan.updates} | set(plan.bias_layers) | set(plan.scale_layers)
    added = [layer for module in lite_residuals(graph, plan.adapters) for layer in module.convolutions]
    layers = [graph.layer(index) for index in touched] + added
    return MicrocontrollerMemory(
        mask_bytes=batch * sum(-(-layer.output_elements // 8) for layer in layers),
        bias_bytes=sum(BIAS_BYTES * layer.out_channels for layer in layers),
        weight_bytes=sum(update_weights(u, graph.layer(u.layer)) for u in plan.updates)
        + sum(layer.weights for layer in added),
        input_bytes=batch
        * (
            sum(input_slice_elements(u, graph.layer(u.layer)) for u in plan.updates)
            + sum(layer.input_elements for layer in added)
        ),
        feature_bytes=batch * graph.feature_channels,
    )
