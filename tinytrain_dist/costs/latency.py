"""Additive latency model: per layer, MACs by class + weight bytes + activation bytes + overhead.

Form for in-order cores; fitted to published inference rows it leaves about 6 % leave-one-out error on a Cortex-M7
(MACs alone: 25 %). Training has its own factors and standing; ``costs/intervals.py`` says how far to trust both.
A batch is priced image by image: no figure assumes that a larger batch reads weights less often. Only where whole runs
said so (``overhead_per``) are operations launched once per batch (``without_launches``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinytrain_dist.costs.counters import STATE_WORDS
from tinytrain_dist.costs.macs import chain_start
from tinytrain_dist.costs.measurements import ELEMENT_BYTES
from tinytrain_dist.costs.phase_amounts import (
    Amounts,
    chain_amounts,
    fisher_amounts,
    input_grad_amounts,
    load_amounts,
    nanoseconds,
    optimizer_amounts,
    update_amounts,
    weight_grad_amounts,
)
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, update_weights, updated_weights

_NS_PER_MS = 1e6
_NS_PER_US = 1e3


@dataclass(frozen=True, kw_only=True)
class ImagePass:
    """Milliseconds of one image."""

    forward_ms: float
    input_grad_ms: float
    weight_grad_ms: float

    @property
    def total_ms(self) -> float:
        """Forward and backward."""
        return self.forward_ms + self.input_grad_ms + self.weight_grad_ms


def without_launches(profile: DeviceProfile) -> DeviceProfile:
    """Return ``profile`` without what every batch pays once; itself where images pay for all of it."""
    if profile.overhead_per == "image":
        return profile
    return profile.model_copy(update={"layer_overhead_us": 0.0, "pass_overhead_us": 0.0})


def ns_per_mac(layer: ConvLayer, profile: DeviceProfile) -> float:
    """Return the cost of one forward MAC of ``layer``."""
    if layer.role == "depthwise":
        return profile.depthwise_ns_per_mac
    return profile.pointwise_ns_per_mac if layer.kernel == 1 else profile.standard_ns_per_mac


def layer_ms(layer: ConvLayer, profile: DeviceProfile, *, cost_ratio: float = 1.0, share: float = 1.0) -> float:
    """Return the milliseconds of one pass through ``layer`` for one image.

    ``cost_ratio`` is the cost of a MAC relative to a forward MAC, ``share`` the computed share of MACs and weights.
    Bytes are those of the precision whose times the profile's coefficients were fitted to, as in ``prediction``.
    """
    element = ELEMENT_BYTES[profile.precision]
    compute = share * layer.macs * cost_ratio * ns_per_mac(layer, profile)
    weights = share * layer.weights * element * profile.weight_ns_per_byte
    activations = (layer.input_elements + layer.output_elements) * element * profile.activation_ns_per_byte
    return (compute + weights + activations + profile.layer_overhead_us * _NS_PER_US) / _NS_PER_MS


def _chain_ms(graph: LayerGraph, start: int, profile: DeviceProfile) -> float:
    if "input_grad" in profile.phases:
        return _measured_ms(profile, "input_grad", chain_amounts(graph, start))
    ratio = profile.input_grad_cost_ratio
    return sum(layer_ms(layer, profile, cost_ratio=ratio) for layer in graph.layers[start + 1 :])


def input_grad_ms(layer: ConvLayer, profile: DeviceProfile) -> float:
    """Return the time of one layer's input gradient for one image."""
    if "input_grad" in profile.phases:
        return _measured_ms(profile, "input_grad", input_grad_amounts(layer))
    return layer_ms(layer, profile, cost_ratio=profile.input_grad_cost_ratio)


def weight_grad_ms(layer: ConvLayer, profile: DeviceProfile) -> float:
    """Return the time of the gradient of all weights of one layer for one image."""
    if "weight_grad" in profile.phases:
        return _measured_ms(profile, "weight_grad", update_amounts(layer))
    return layer_ms(layer, profile, cost_ratio=profile.weight_grad_cost_ratio)


def _measured_ms(profile: DeviceProfile, phase: str, amounts: Amounts) -> float:
    return nanoseconds(profile.phases[phase], amounts) / _NS_PER_MS


def forward_ms(graph: LayerGraph, profile: DeviceProfile) -> float:
    """Return the milliseconds of one forward pass of one image."""
    return sum(layer_ms(layer, profile) for layer in graph.layers) + profile.pass_overhead_us / 1e3


def image_pass(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile) -> ImagePass:
    """Return the time of one image under ``plan``.

    The chain is the one a device has to run: back to the first layer where anything changes, biases included,
    and without the input gradient of the first layer of that chain.
    """
    start = chain_start(plan, chain="everything")
    return ImagePass(
        forward_ms=forward_ms(graph, profile),
        input_grad_ms=0.0 if start is None else _chain_ms(graph, start, profile),
        weight_grad_ms=_weight_grads_ms(graph, plan, profile),
    )


def _weight_grads_ms(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile) -> float:
    if "weight_grad" in profile.phases:
        own = (*plan.updates, *plan.bias_layers, *plan.scale_layers)
        return _measured_ms(profile, "weight_grad", weight_grad_amounts(graph, plan)) if own else 0.0
    total = 0.0
    for update in plan.updates:
        layer = graph.layer(update.layer)
        share = update_weights(update, layer) / layer.weights
        total += layer_ms(layer, profile, cost_ratio=profile.weight_grad_cost_ratio, share=share)
    return total


def fisher_pass_ms(graph: LayerGraph, inspected: Sequence[int], profile: DeviceProfile) -> float:
    """Return the time of one image in the Fisher pass: forward, input gradients, activation x gradient sums."""
    if not inspected:
        return 0.0
    if "fisher" in profile.phases:
        return _measured_ms(profile, "fisher", fisher_amounts(graph, inspected))
    elements = sum(graph.layer(index).output_elements for index in inspected)
    reduction = elements * profile.pointwise_ns_per_mac / _NS_PER_MS
    passes = forward_ms(graph, profile) + _chain_ms(graph, min(inspected), profile) + reduction
    return profile.fisher_cost_ratio * passes


def optimizer_step_ms(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile, *, optimizer: str) -> float:
    """Return the time of one optimizer step; the profile states Adam's, SGD touches a third of the words."""
    share = STATE_WORDS[optimizer] / STATE_WORDS["adam"]
    if "optimizer" in profile.phases:
        if plan.is_empty:
            return 0.0
        counts = optimizer_amounts(graph, plan)
        return _measured_ms(profile, "optimizer", counts | {"weights": share * counts["weights"]})
    return updated_weights(plan, graph) * share * profile.optimizer_ns_per_weight / _NS_PER_MS


def load_ms(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile, *, stored_bytes: int) -> float:
    """Return the time to load the network and the modules of ``plan``, ``stored_bytes`` in all."""
    if "load" in profile.phases:
        return _measured_ms(profile, "load", load_amounts(graph, plan))
    return transfer_ms(stored_bytes, profile)


def transfer_ms(num_bytes: int, profile: DeviceProfile) -> float:
    """Return the time to move ``num_bytes`` from or to storage; 0 where there is no such storage."""
    bandwidth = profile.storage_bandwidth_bytes_per_s
    return 0.0 if bandwidth == 0 else 1e3 * num_bytes / bandwidth
