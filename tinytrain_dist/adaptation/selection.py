"""Algorithm 1: layers in order of their score, as many as the budget holds; channels by their own Delta."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.adaptation.channel_criteria import ChannelFacts, channel_scores
from tinytrain_dist.adaptation.criteria import CRITERIA, LayerFacts
from tinytrain_dist.adaptation.settings import STUDIED_RATIOS, SelectionSettings
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, Side, UpdatePlan, side_channels

PlanStatus = Literal["ok", "infeasible", "not_applicable"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a method updates on one device; ``reason`` says why nothing, with the missing bytes or MACs."""

    status: PlanStatus
    plan: UpdatePlan
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class SelectionInput:
    """Everything Algorithm 1 looks at.

    Attributes
    ----------
    delta
        Channel importance of each inspected layer, ``[out_channels]``.
    weight_norms
        L2 norm of each inspected layer's weights.
    channel_norms
        L2 norm of a layer's weights per channel of a side, ``[in_channels]`` or ``[out_channels]``.
    memory_of
        Bytes a plan takes by the rule the budget is stated in.
    task_id
        Seeds the criteria called ``random``.
    device
        Name of the device: it may have a channel ratio of its own.
    """

    graph: LayerGraph
    delta: Mapping[int, NDArray[np.float64]]
    weight_norms: Mapping[int, float]
    channel_norms: Callable[[int, Side], NDArray[np.float64]]
    budget: Budget
    memory_of: Callable[[UpdatePlan], int]
    settings: SelectionSettings
    task_id: str
    device: str = ""


def select_plan(given: SelectionInput) -> Decision:
    """Return the plan Algorithm 1 chooses, or ``infeasible`` when it holds no layer at all.

    Ratio ``auto`` is the largest of ``STUDIED_RATIOS`` under which the most layers fit.
    """
    ratio = given.settings.ratio_on(given.device)
    ratios = STUDIED_RATIOS if ratio == "auto" else (ratio,)
    order = layer_order(given)
    importance = {layer: channel_importance(given, layer) for layer in order}
    found = [_select(given, [_update(given, layer, importance[layer], r) for layer in order]) for r in ratios]
    best = max(found, key=lambda decision: len(decision.plan.updates))  # the first, so the largest ratio, of equals
    return best if best.status == "ok" else found[-1]


def _select(given: SelectionInput, ranked: list[LayerUpdate]) -> Decision:
    chosen: list[LayerUpdate] = []
    for update in ranked:
        if _fits(given, [*chosen, update]):
            chosen.append(update)
        elif given.settings.on_overflow == "stop":
            break
    if chosen:
        return Decision(status="ok", plan=_plan(given.graph, chosen))
    candidates = ranked[:1] if given.settings.on_overflow == "stop" else ranked
    return Decision(status="infeasible", plan=_plan(given.graph, ()), reason=_missing(given, candidates))


def layer_order(given: SelectionInput) -> list[int]:
    """Return the inspected layers, best score first; equal scores in order of the layers."""
    score = CRITERIA[given.settings.criterion]
    return sorted(given.delta, key=lambda layer: (-score(layer_facts(given, layer)), layer))


def layer_facts(given: SelectionInput, layer: int) -> LayerFacts:
    """Return what a criterion may look at; shares are relative to the largest layer of the whole network."""
    graph = given.graph
    return LayerFacts(
        layer=layer,
        potential=float(given.delta[layer].sum()),
        weight_share=graph.layer(layer).weights / max(x.weights for x in graph.layers),
        macs_share=graph.layer(layer).macs / max(x.macs for x in graph.layers),
        weight_norm=given.weight_norms[layer],
        draw=float(generator_of("criterion", given.task_id, layer).random()),
    )


def top_channels(importance: NDArray[np.float64], ratio: float) -> tuple[int, ...] | None:
    """Return the indices of the ``ratio`` largest entries, ascending; ``None`` for all, never fewer than one."""
    count = max(1, int(ratio * len(importance) + 0.5))
    if count >= len(importance):
        return None
    best = np.lexsort((np.arange(len(importance)), -importance))[:count]
    return tuple(sorted(int(c) for c in best))


def channel_importance(given: SelectionInput, layer: int) -> NDArray[np.float64]:
    """Return the importance of every channel of ``layer`` on the selected side, by the channel criterion."""
    settings = given.settings
    facts = ChannelFacts(
        task_id=given.task_id,
        layer=layer,
        side=settings.side,
        num_channels=side_channels(given.graph.layer(layer), settings.side),
        delta=given.delta[layer],
        norms=lambda: given.channel_norms(layer, settings.side),
    )
    return channel_scores(settings.channel_criterion, facts)


def _update(given: SelectionInput, layer: int, importance: NDArray[np.float64], ratio: float) -> LayerUpdate:
    return LayerUpdate(layer=layer, channels=top_channels(importance, ratio), side=given.settings.side)


def _plan(graph: LayerGraph, updates: Iterable[LayerUpdate]) -> UpdatePlan:
    return UpdatePlan(backbone=graph.name, updates=tuple(sorted(updates, key=lambda u: u.layer)))


def _fits(given: SelectionInput, updates: list[LayerUpdate]) -> bool:
    plan = _plan(given.graph, updates)
    if plan_macs(given.graph, plan).backward > given.budget.backward_macs:
        return False
    return given.memory_of(plan) <= given.budget.memory_bytes


def _missing(given: SelectionInput, candidates: list[LayerUpdate]) -> str:
    """Say what the layer that misses the budget by the least would still need."""
    best: tuple[float, str] | None = None
    for update in candidates:
        plan = _plan(given.graph, [update])
        memory, macs = given.memory_of(plan), plan_macs(given.graph, plan).backward
        short_bytes = given.budget.missing_bytes(memory)
        short_macs = max(0, macs - given.budget.backward_macs)
        share = short_bytes / given.budget.memory_bytes + short_macs / given.budget.backward_macs
        text = f"layer {update.layer} alone misses {short_bytes} bytes and {short_macs} backward MACs"
        best = min(best or (share, text), (share, text))
    assert best is not None, "at least one layer is always inspected"
    which = "the best layer does not fit" if given.settings.on_overflow == "stop" else "no layer fits"
    return f"{which} the budget; {best[1]}"
