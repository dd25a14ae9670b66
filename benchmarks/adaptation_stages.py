"""One step of a tuning, stage by stage, the plain way and ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.adaptation_grid import SELECTION
from benchmarks.adaptation_tasks import Workbench, in_turn
from benchmarks.plain_adaptation import _unfreeze, plain_fisher
from tinytrain_dist.adaptation.fine_tuning import make_optimizer
from tinytrain_dist.adaptation.fisher import fisher_information
from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.adaptation.prefix_cache import concatenate
from tinytrain_dist.adaptation.sparse_pass import SparsePass
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.graphs.update_plan import UpdatePlan

Stage = tuple[str, float, float]


def stages(bench: Workbench, plan: UpdatePlan) -> Iterator[Stage]:
    """Yield name, CPU seconds of plain, CPU seconds of ours."""
    episode = bench.episode(0)
    task, cut = bench.task(episode), plan.earliest_layer
    assert cut is not None
    end, backbone, network = len(bench.graph.layers), bench.backbone, bench.network
    view, support = task.view(0), task.support_input
    both_nchw = torch.cat([support, view]).contiguous()

    def timed(name: str, plain: Callable[[], Any], ours: Callable[[], Any]) -> tuple[Stage, Any, Any]:
        found = in_turn({"plain": plain, "ours": ours}, repeats=max(3, bench.repeats))
        return (name, found["plain"][0], found["ours"][0]), found["plain"][1], found["ours"][1]

    yield timed("augmentation", lambda: task.view(1), lambda: task.view(1))[0]
    masks = _unfreeze(backbone, plan)
    with torch.no_grad():
        prefix = backbone.run(LayerState(both_nchw), start=0, stop=cut)
    # plain passes both sets through the frozen layers in every step, ours only the fresh view
    row, _, state = timed(
        "frozen layers, one step",
        lambda: backbone.run(LayerState(both_nchw), start=0, stop=cut),
        lambda: network.run(LayerState(view), stop=cut),
    )
    if cut > 0:
        yield row
    weights = PlanWeights(network, plan)
    sparse = SparsePass(network, weights=weights, start=cut)
    sparse.refresh()
    ours_state = concatenate([task.support_state(cut), state])
    row, plain_out, (features, tape) = timed(
        "updated layers forward",
        lambda: backbone.pool(backbone.run(prefix, start=cut, stop=end)),
        lambda: sparse.forward(ours_state),
    )
    yield row
    gradient = torch.randn_like(features)
    row, _, flat = timed(
        "backward",
        lambda: plain_out.backward(gradient, retain_graph=True),
        lambda: sparse.backward(tape, gradient),
    )
    yield row
    weights.values.grad = flat
    optimizer = make_optimizer(weights.values, task.settings)
    plain_optimizer = torch.optim.Adam([p for p in backbone.parameters() if p.requires_grad], lr=1e-9)

    def plain_update() -> None:
        for parameter, mask in masks:
            assert parameter.grad is not None
            parameter.grad *= mask
        plain_optimizer.step()

    def our_update() -> None:
        optimizer.step()
        sparse.refresh()

    yield timed("optimizer", plain_update, our_update)[0]
    yield timed("head and its gradient", *[lambda: _head(task, features)] * 2)[0]
    backbone.requires_grad_(False).zero_grad()
    inspected = bench.graph.last_blocks(SELECTION.inspect_blocks)
    yield timed(
        "Fisher information, once a task",
        lambda: plain_fisher(backbone, task, inspected),
        lambda: fisher_information(bench.task(episode), inspected),
    )[0]


def _head(task: Any, features: torch.Tensor) -> torch.Tensor:
    leaf = features.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(*torch.tensor_split(leaf, 2)), leaf)
    return gradient
