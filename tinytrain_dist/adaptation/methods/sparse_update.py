"""Method ``sparse_update``: a static scheme found offline; the same layers for every task and device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.costs.static_plans import SPARSE_UPDATE_SCHEMES, scheme_plan
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan


class SparseUpdate(Method):
    """MCUNetV3's sparse update: layers, input-channel shares and biases from a scheme stored as data; inside a
    layer the input channels of largest weight norm.
    """

    name = "sparse_update"
    citation = "On-Device Training Under 256KB Memory, Lin et al., NeurIPS 2022 (arXiv 2206.15472)"

    def decide(self, question: PlanQuestion) -> Decision:
        """Return the scheme's plan, or ``not_applicable`` for a backbone without one."""
        scheme = SPARSE_UPDATE_SCHEMES.get(question.graph.name)
        if scheme is None:
            reason = f"no static scheme is known for {question.graph.name}; tinytrain search-static finds one"
            return Decision(status="not_applicable", plan=UpdatePlan(backbone=question.graph.name), reason=reason)
        plan = scheme_plan(question.graph, scheme)
        return Decision(status="ok", plan=replace(plan, updates=tuple(_largest(question, u) for u in plan.updates)))


def _largest(question: PlanQuestion, update: LayerUpdate) -> LayerUpdate:
    """Return the update with its input channels of largest weight norm."""
    assert update.channels is not None
    norms = question.input_norms(update.layer)
    if len(update.channels) == len(norms):
        return update
    best = np.lexsort((np.arange(len(norms)), -norms))[: len(update.channels)]
    return replace(update, channels=tuple(sorted(int(c) for c in best)))


METHODS.register(SparseUpdate.name, SparseUpdate())
