"""The paper's memory counter: what the tables of TinyTrain (arXiv 2307.09988) count. MB there is MiB.

Three formulas, and every figure says which (``PaperMemory.rule``):

``plan``
    updated weights + optimizer + max(forward activations, saved activations); Table 2 at batch 1, Table 7.
``full_train``
    ``batch x (convolution inputs + normalisation inputs + activation inputs)`` plus, per parameter, itself and
    its optimizer state; reproduces the FullTrain rows of Table 2 at batch 100 within 0.4 %.
``adapters``
    the FullTrain formula over what trains: convolution, normalisation and activation inputs of the modules, and of
    the frozen backbone the activation inputs the gradient passes. The published rows follow another rule, which no
    one has found (``docs/costs.md``).

Bytes per element count weights and activations. Gradients and optimizer state stay fp32 (4 bytes each) at every
precision: an int8 weight cannot be trained by int8 moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tinytrain_dist.costs.macs import chain_start
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.graphs.adapters import LiteResidual, lite_residuals
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, updated_weights

STATE_WORDS = {"adam": 3, "sgd": 1}
"""fp32 words per updated weight: gradient, and Adam's two moments."""
STATE_WORD_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class PaperMemory:
    """Memory of one training step, in bytes, term by term."""

    rule: Literal["plan", "full_train", "adapters"]
    batch: int
    updated_weight_bytes: int
    optimizer_bytes: int
    forward_activation_bytes: int
    saved_activation_bytes: int
    parameter_bytes: int

    @property
    def activation_bytes(self) -> int:
        """The larger of forward and saved activations: they are not alive together."""
        return max(self.forward_activation_bytes, self.saved_activation_bytes)

    @property
    def total_bytes(self) -> int:
        """The paper's backward-pass memory."""
        return self.updated_weight_bytes + self.optimizer_bytes + self.activation_bytes

    @property
    def peak_bytes(self) -> int:
        """The paper's peak: backward-pass memory plus all parameters (Table 8)."""
        return self.total_bytes + self.parameter_bytes


def check_batch(batch: int) -> int:
    """Return ``batch`` if it is a whole number of images above 0, else raise ``ConfigError``."""
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ConfigError(f"batch: found {batch!r}; allowed: a whole number of images above 0")
    return batch


def state_bytes(num_weights: int, optimizer: str) -> int:
    """Return the bytes of gradients and optimizer state for ``num_weights`` updated weights."""
    if optimizer not in STATE_WORDS:
        raise ConfigError(f"unknown optimizer {optimizer!r}; {nearest(optimizer, STATE_WORDS)}")
    return STATE_WORDS[optimizer] * STATE_WORD_BYTES * num_weights


def forward_elements(graph: LayerGraph) -> int:
    """Return the largest input + output // groups over all convolutions, for one image; no residual term."""
    return max(layer.input_elements + layer.output_elements // layer.groups for layer in graph.layers)


def mask_bytes(elements: int) -> int:
    """Return the bytes of 1-bit activation masks over ``elements`` outputs."""
    return -(-elements // 8)


def saved_activation_bytes(graph: LayerGraph, start: int | None, *, batch: int = 1, bytes_per_element: int = 4) -> int:
    """Return the inputs of ALL convolutions from ``start`` on, plus 1-bit masks: an upper bound (Table 11)."""
    layers = () if start is None else graph.layers[start:]
    inputs = sum(layer.input_elements for layer in layers)
    masks = sum(layer.output_elements for layer in layers if layer.has_activation)
    return batch * inputs * bytes_per_element + mask_bytes(batch * masks)


def paper_memory(
    graph: LayerGraph, plan: UpdatePlan, *, optimizer: str = "adam", bytes_per_element: int = 4, batch: int = 1
) -> PaperMemory:
    """Return the paper's counter for ``plan``; layers where only a bias changes do not extend the chain."""
    check_batch(batch)
    weights = updated_weights(plan.check(graph), graph)
    return PaperMemory(
        rule="plan",
        batch=batch,
        updated_weight_bytes=weights * bytes_per_element,
        optimizer_bytes=state_bytes(weights, optimizer),
        forward_activation_bytes=batch * forward_elements(graph) * bytes_per_element,
        saved_activation_bytes=saved_activation_bytes(
            graph, chain_start(plan), batch=batch, bytes_per_element=bytes_per_element
        ),
        parameter_bytes=graph.parameters * bytes_per_element,
    )


def full_memory(graph: LayerGraph, *, batch: int, bytes_per_element: int = 4, optimizer: str = "adam") -> PaperMemory:
    """Return the FullTrain formula at any batch: every parameter, normalisation included, is updated."""
    check_batch(batch)
    elements = sum(
        layer.input_elements + layer.output_elements + layer.output_elements * layer.has_activation
        for layer in graph.layers
    )
    return PaperMemory(
        rule="full_train",
        batch=batch,
        updated_weight_bytes=graph.parameters * bytes_per_element,
        optimizer_bytes=state_bytes(graph.parameters, optimizer),
        forward_activation_bytes=batch * forward_elements(graph) * bytes_per_element,
        saved_activation_bytes=batch * elements * bytes_per_element,
        parameter_bytes=graph.parameters * bytes_per_element,
    )


def adapter_memory(
    graph: LayerGraph, plan: UpdatePlan, *, batch: int = 1, bytes_per_element: int = 4, optimizer: str = "adam"
) -> PaperMemory:
    """Return the formula of plans with lite residual modules; weights updated besides add the plan's own term."""
    check_batch(batch)
    modules = lite_residuals(graph, plan.check(graph).adapters)
    start = chain_start(plan)
    passed = () if start is None else graph.layers[start + 1 :]
    elements = sum(layer.output_elements for layer in passed if layer.has_activation)
    elements += sum(module_elements(module) for module in modules)
    besides = saved_activation_bytes(
        graph, plan.earliest_weight_layer, batch=batch, bytes_per_element=bytes_per_element
    )
    trained = updated_weights(plan, graph) + sum(module.parameters for module in modules)
    return PaperMemory(
        rule="adapters",
        batch=batch,
        updated_weight_bytes=trained * bytes_per_element,
        optimizer_bytes=state_bytes(trained, optimizer),
        forward_activation_bytes=batch * forward_elements(graph) * bytes_per_element,
        saved_activation_bytes=batch * elements * bytes_per_element + besides,
        parameter_bytes=(graph.parameters + sum(module.parameters for module in modules)) * bytes_per_element,
    )


def module_elements(module: LiteResidual) -> int:
    """Return the inputs of a module's convolutions, normalisations and activation, for one image."""
    first, second = module.convolutions
    convolutions = first.input_elements + second.input_elements
    return convolutions + first.output_elements + second.output_elements + first.output_elements
