"""The written-out backward pass of a lite residual module is autograd's."""

import pytest
import torch

from tinytrain_dist.adaptation.branches import NAMES, Branches
from tinytrain_dist.graphs.adapters import adapter_plan, lite_residuals
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph

GRAPHS = [layer_graph("mcunet", 50), layer_graph("mobilenet_v2", 32), layer_graph("proxylessnas", 84)]
"""Odd maps, of which pooling leaves out a row; maps of one pixel, which are not pooled; ordinary ones."""


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_the_gradients_of_every_module_are_those_of_autograd(graph: LayerGraph) -> None:
    plan = adapter_plan(graph)
    branches = Branches(graph, plan)
    generator = torch.Generator().manual_seed(0)
    modules = lite_residuals(graph, plan.adapters)
    for module in modules:
        x = torch.rand((2, module.in_channels, module.in_size, module.in_size), generator=generator).double() - 0.4
        parameters = branches.initial(module.layer, dtype=torch.float64)
        for name in ("point_scale", "point_shift", "group_shift"):  # they start at 0, which would hide the rest
            parameters[name] = torch.rand(len(parameters[name]), generator=generator).double() + 0.5
        branches.measure(module.layer, parameters, x)
        leaf = x.clone().requires_grad_()
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        added = branches.apply(module.layer, leaves, leaf)
        grad = torch.rand(added.shape, generator=generator).double() - 0.5
        expected = torch.autograd.grad(added, [*(leaves[name] for name in NAMES), leaf], grad)

        same, tape = branches.forward(module.layer, parameters, x)
        assert torch.equal(same, added.detach())
        for passes in (True, False):
            found, of_input = branches.backward(module.layer, parameters, tape, grad, passes=passes)
            torch.testing.assert_close(tuple(found), expected[:-1], rtol=1e-10, atol=1e-12)
            assert (of_input is not None) == passes
            if of_input is not None:
                torch.testing.assert_close(of_input, expected[-1], rtol=1e-10, atol=1e-12)
