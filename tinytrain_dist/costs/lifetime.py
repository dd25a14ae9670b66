"""The lifetime planner: the RAM a runtime needs, from the life of every tensor of one training step.

Alive at a step: the tensors the operation reads and writes, what earlier layers keep for the backward pass, the
input of a block while its residual waits, the masks of the chain, the gradients in flight, scratch, and throughout:
updated weights, optimizer state and prototypes. The peak is the largest sum over all steps; a perfect allocator
would need no more, a real one may (fragmentation, stack and runtime state are not counted).

- Depthwise convolutions run in place, channel by channel, with one channel as buffer (or a buffer of their own,
  ``RuntimeRules.im2col``); the channels whose input is
  kept cannot be overwritten, and neither can a block's input that a residual still needs.
- Kept slices are what is left of a tensor when everything else is done with it: nothing is held twice.
- Training by prototypes at a batch below the whole task makes every support image pass forward a second time
  (``Workload.recomputed_images``); that costs time, not memory: only class sums and their gradients stay.
- Frozen weights are not here: in flash on a microcontroller, resident on a Linux board (``costs/fit.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tinytrain_dist.costs.counters import STATE_WORDS, check_batch
from tinytrain_dist.costs.lifetime_graph import (
    INT8_RUNTIME,
    WORD_BYTES,
    Flags,
    Ints,
    RuntimeRules,
    TensorBytes,
    tensor_bytes,
)
from tinytrain_dist.costs.plan_arrays import PlanArrays, fisher_arrays, plan_arrays
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan

WAY_DEFAULT = 5
_CHUNK_PLANS = 2048


@dataclass(frozen=True, kw_only=True)
class LifetimeMemory:
    """Bytes of RAM of one training step, frozen weights left out.

    ``forward_bytes`` and ``backward_bytes`` are the largest sums of activations, gradients, masks and scratch alive
    together; ``fisher_bytes`` the peak of the Fisher pass, prototypes included (0: none is made).
    """

    updated_weight_bytes: int
    optimizer_bytes: int
    head_bytes: int
    forward_bytes: int
    backward_bytes: int
    fisher_bytes: int

    @property
    def arena_bytes(self) -> int:
        """Peak without weights, optimizer state and prototypes: what TinyEngine reports as its peak SRAM."""
        return max(self.forward_bytes, self.backward_bytes)

    @property
    def training_bytes(self) -> int:
        """Peak of a training step."""
        resident = self.updated_weight_bytes + self.optimizer_bytes + self.head_bytes
        return resident + self.arena_bytes

    @property
    def total_bytes(self) -> int:
        """Peak of everything the adaptation runs."""
        return max(self.training_bytes, self.fisher_bytes)


def lifetime_memory(
    graph: LayerGraph,
    plan: UpdatePlan,
    *,
    rules: RuntimeRules = INT8_RUNTIME,
    optimizer: str = "adam",
    batch: int = 1,
    way: int = WAY_DEFAULT,
    inspected: Sequence[int] = (),
) -> LifetimeMemory:
    """Return the planner's figures for one plan, term by term.

    Parameters
    ----------
    way
        Classes of the task: their prototypes and the gradients of these stay in RAM.
    inspected
        Layers of the Fisher pass; empty: none is made.
    """
    arrays = plan_arrays(graph, [plan.check(graph)])
    terms = lifetime_terms(graph, arrays, rules=rules, optimizer=optimizer, batch=batch, way=way)
    fisher = fisher_bytes(graph, tuple(inspected), rules=rules, batch=batch, way=way)
    return LifetimeMemory(**{name: int(values[0]) for name, values in terms.items()}, fisher_bytes=fisher)


def lifetime_totals(
    graph: LayerGraph,
    plans: PlanArrays,
    *,
    rules: RuntimeRules = INT8_RUNTIME,
    optimizer: str = "adam",
    batch: int = 1,
    way: int = WAY_DEFAULT,
    inspected: Sequence[int] = (),
) -> Ints:
    """Return ``LifetimeMemory.total_bytes`` of every plan, ``[num_plans]``."""
    totals = np.zeros(len(plans.start), np.int64)
    for first, chunk in enumerate(plans.chunks(_CHUNK_PLANS)):
        terms = lifetime_terms(graph, chunk, rules=rules, optimizer=optimizer, batch=batch, way=way)
        work = np.maximum(terms.pop("forward_bytes"), terms.pop("backward_bytes"))
        place = slice(first * _CHUNK_PLANS, (first + 1) * _CHUNK_PLANS)
        totals[place] = work + np.sum(list(terms.values()), axis=0)
    fisher = fisher_bytes(graph, tuple(inspected), rules=rules, batch=batch, way=way)
    return np.maximum(totals, fisher)


def lifetime_terms(
    graph: LayerGraph, plans: PlanArrays, *, rules: RuntimeRules, optimizer: str, batch: int, way: int
) -> dict[str, Ints]:
    """Return the terms of ``LifetimeMemory`` but the Fisher pass for every plan, each ``[num_plans]``."""
    check_batch(batch)
    if optimizer not in STATE_WORDS:
        raise ConfigError(f"unknown optimizer {optimizer!r}; {nearest(optimizer, STATE_WORDS)}")
    sizes = tensor_bytes(graph, rules, batch)
    changed = plans.bias.astype(np.int64) + plans.scale
    others = (changed * sizes.channels + plans.adapters * sizes.module_parameters).sum(axis=1)
    weights = plans.weights.sum(axis=1)
    words = STATE_WORDS[optimizer] - rules.fused_update
    forward, backward = activation_peaks(sizes, plans, rules)
    return {
        "updated_weight_bytes": weights * rules.element_bytes + others * WORD_BYTES,
        "optimizer_bytes": words * WORD_BYTES * (weights + others),
        "head_bytes": head_bytes(graph, batch=batch, way=way, trains=plans.start < sizes.num_layers),
        "forward_bytes": forward,
        "backward_bytes": backward,
    }


def head_bytes(graph: LayerGraph, *, batch: int, way: int, trains: Flags) -> Ints:
    """Return the bytes of features and prototypes, and where something trains of the prototypes' gradients."""
    if isinstance(way, bool) or not isinstance(way, int) or way < 1:
        raise ConfigError(f"way: found {way!r}; allowed: a whole number of classes above 0")
    return WORD_BYTES * graph.feature_channels * (batch + way * (1 + trains.astype(np.int64)))


@lru_cache(maxsize=256)
def fisher_bytes(graph: LayerGraph, inspected: tuple[int, ...], *, rules: RuntimeRules, batch: int, way: int) -> int:
    """Return the peak of the pass that measures Fisher information, before anything is chosen; 0 without one."""
    if not inspected:
        return 0
    forward, backward = activation_peaks(tensor_bytes(graph, rules, batch), fisher_arrays(graph, inspected), rules)
    sums = WORD_BYTES * sum(graph.layer(index).out_channels for index in inspected)
    head = head_bytes(graph, batch=batch, way=way, trains=np.array([True]))
    return int(max(forward[0], backward[0]) + sums + head[0])


def activation_peaks(sizes: TensorBytes, plans: PlanArrays, rules: RuntimeRules) -> tuple[Ints, Ints]:
    """Return the largest sums alive in the forward and in the backward pass, each ``[num_plans]``."""
    kept = plans.kept_inputs * sizes.element_bytes
    masks = np.where(np.arange(sizes.num_layers) >= plans.start[:, None], sizes.masks, 0)
    own = masks + np.where(plans.copies, sizes.outputs, 0) + np.where(plans.adapters, sizes.module_kept, 0)
    before = np.cumsum(kept + own, axis=1) - (kept + own)
    forward = before + own + _forward_work(sizes, plans, kept)
    return forward.max(axis=1), _backward_peak(sizes, plans, rules, before=before, saved=kept + own, masks=masks)


def _forward_work(sizes: TensorBytes, plans: PlanArrays, kept: Ints) -> Ints:
    """Return input, output, scratch and a held block input of every layer; the input contains what is kept of it."""
    holds = sizes.skips | plans.adapters[:, sizes.end_of_block]
    held = np.where(holds & ~sizes.is_first, sizes.block_input - kept[:, sizes.first], 0)
    num_kept = kept * sizes.channels // sizes.inputs
    in_place = np.minimum(sizes.outputs, sizes.one_channel * (sizes.num_buffer_channels + num_kept))
    output = np.where(sizes.depthwise & ~(holds & sizes.is_first), in_place, sizes.outputs)
    return sizes.inputs + output + held + sizes.scratch


def _backward_peak(
    sizes: TensorBytes, plans: PlanArrays, rules: RuntimeRules, *, before: Ints, saved: Ints, masks: Ints
) -> Ints:
    start = plans.start[:, None]
    index = np.arange(sizes.num_layers)
    leaves = sizes.first > start
    modules = plans.adapters[:, sizes.end_of_block] & leaves
    held = np.where(sizes.skips & ~sizes.is_last & leaves, sizes.block_grad, 0) + sizes.scratch
    module_grad = np.where(modules, sizes.block_input_grad, 0)
    weight_grads = WORD_BYTES * (plans.weights + plans.adapters * sizes.module_parameters) * rules.fused_update
    working = weight_grads + np.where(plans.adapters, sizes.module_work, 0)
    both = np.where(index > start, sizes.output_grads + sizes.input_grads, sizes.output_grads)
    if rules.reorder:
        in_place = np.maximum(sizes.output_grads, sizes.input_grads) + sizes.one_grad_channel
        weight_step = before + saved + held + working + sizes.output_grads + module_grad * ~sizes.is_last
        input_step = before + masks + held + module_grad + np.where(sizes.depthwise, np.minimum(in_place, both), both)
        alive = np.maximum(weight_step, np.where(index > start, input_step, 0))
    else:
        alive = before + saved + held + working + module_grad + both
    peaks: Ints = np.where(index >= start, alive, 0).max(axis=1)
    return peaks
