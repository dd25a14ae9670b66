"""Time of lite residual modules: their two convolutions as layers. Pooling and upsampling are not counted."""

from __future__ import annotations

from tinytrain_dist.costs.counters import STATE_WORDS
from tinytrain_dist.costs.latency import ImagePass, input_grad_ms, layer_ms, weight_grad_ms
from tinytrain_dist.costs.macs import passes_gradient
from tinytrain_dist.costs.phase_amounts import adapter_amounts, nanoseconds
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.graphs.adapters import LiteResidual, lite_residuals
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan


def adapter_pass(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile) -> ImagePass:
    """Return what the modules of ``plan`` add to one image: forward, input gradients, weight gradients.

    Modules that were measured by themselves were measured both ways at once: all of it counts as weight gradients.
    """
    start = plan.earliest_layer
    forward = input_grad = weight_grad = 0.0
    for module in lite_residuals(graph, plan.adapters):
        if "adapters" in profile.phases:
            weight_grad += module_ms(module, profile)
            continue
        assert start is not None, "a plan with modules changes something"
        first, second = module.convolutions
        forward += layer_ms(first, profile) + layer_ms(second, profile)
        weight_grad += weight_grad_ms(first, profile) + weight_grad_ms(second, profile)
        passed = (first, second) if passes_gradient(graph, module, start) else (second,)
        input_grad += sum(input_grad_ms(layer, profile) for layer in passed)
    return ImagePass(forward_ms=forward, input_grad_ms=input_grad, weight_grad_ms=weight_grad)


def module_ms(module: LiteResidual, profile: DeviceProfile) -> float:
    """Return the time of one module both ways, where modules were measured by themselves."""
    return nanoseconds(profile.phases["adapters"], adapter_amounts(module)) / 1e6


def adapter_optimizer_ms(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile, *, optimizer: str) -> float:
    """Return what the modules' parameters add to one optimizer step."""
    parameters = sum(module.parameters for module in lite_residuals(graph, plan.adapters))
    measured = profile.phases.get("optimizer")
    per_weight = profile.optimizer_ns_per_weight if measured is None else measured.get("weights", 0.0)
    return parameters * STATE_WORDS[optimizer] / STATE_WORDS["adam"] * per_weight / 1e6
