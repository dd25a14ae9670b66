"""Ratios between methods: at equal batch, and beside it as the paper states them, at mixed batches.

TinyTrain (arXiv 2307.09988, Table 2) costs FullTrain and the adapter methods at batch 100 and everything else at
batch 1, which alone makes a factor of about 60 of its "1000x". Either figure is right for its own question; a ratio
is never shown without the other one.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.costs.fit import counted_memory
from tinytrain_dist.costs.lifetime import lifetime_memory
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.costs.static_plans import StaticPlan
from tinytrain_dist.graphs.layer_graph import LayerGraph

PAPER_BATCH_LARGE = 100


def paper_batch(chosen: StaticPlan) -> int:
    """Return the batch the paper costs a method at."""
    return PAPER_BATCH_LARGE if chosen.full or chosen.plan.adapters else 1


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """How many times as much a method takes as the one it is compared with; ``None``: that one takes nothing.

    ``equal_batch``: both at ``batch``; ``paper_batches``: each at the batch the paper costs it at. MACs are per image
    and know no batch.
    """

    compared_with: str
    batch: int
    paper_batch: int
    compared_paper_batch: int
    memory_equal_batch: float
    memory_paper_batches: float
    lifetime_int8_equal_batch: float
    backward_macs: float | None


def ratios(
    graph: LayerGraph, chosen: StaticPlan, other: StaticPlan, *, name: str, batch: int = 1, optimizer: str = "adam"
) -> Ratios:
    """Return the ratios of ``chosen`` to ``other``, which is called ``name``."""

    def memory(which: StaticPlan, at: int) -> int:
        return counted_memory(graph, which.plan, full=which.full, batch=at, optimizer=optimizer).total_bytes

    def lifetime(which: StaticPlan) -> int:
        return lifetime_memory(graph, which.plan, batch=batch, optimizer=optimizer).total_bytes

    own, others = paper_batch(chosen), paper_batch(other)
    macs, other_macs = plan_macs(graph, chosen.plan).backward, plan_macs(graph, other.plan).backward
    return Ratios(
        compared_with=name,
        batch=batch,
        paper_batch=own,
        compared_paper_batch=others,
        memory_equal_batch=memory(chosen, batch) / memory(other, batch),
        memory_paper_batches=memory(chosen, own) / memory(other, others),
        lifetime_int8_equal_batch=lifetime(chosen) / lifetime(other),
        backward_macs=macs / other_macs if other_macs else None,
    )
