"""Method ``sparse_update``: a static scheme found offline; the same layers for every task and device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.costs.schemes import default_scheme, scheme_plan
from tinytrain_dist.graphs.update_plan import LayerUpdate, Side, UpdatePlan


class SparseUpdate(Method):
    """MCUNetV3's sparse update: layers, input-channel shares and biases from a scheme stored as data; inside a
    layer the input channels of largest weight norm.
    """

    name = "sparse_update"
    citation = "On-Device Training Under 256KB Memory, Lin et al., NeurIPS 2022 (arXiv 2206.15472)"

    def decide(self, question: PlanQuestion) -> Decision:
        """Return the scheme's plan, or ``not_applicable`` for a backbone without one."""
        scheme = question.settings.scheme or default_scheme(question.graph.name)
        if scheme is None:
            reason = f"no static scheme is known for {question.graph.name}; tinytrain search-static finds one"
            return Decision(status="not_applicable", plan=UpdatePlan(backbone=question.graph.name), reason=reason)
        plan = largest_inputs(scheme_plan(question.graph, scheme), question.channel_norms)
        return Decision(status="ok", plan=plan)

    def variant_settings(self, finetune: FineTuneSettings, selection: SelectionSettings) -> dict[str, object]:
        """Training settings, and the scheme where it is not the shipped default."""
        scheme = {} if selection.scheme is None else {"scheme": selection.scheme.hash}
        return super().variant_settings(finetune, selection) | scheme


def largest_inputs(plan: UpdatePlan, norms_of: Callable[[int, Side], NDArray[np.float64]]) -> UpdatePlan:
    """Return the plan with as many input channels of each layer, but those of largest weight norm.

    Parameters
    ----------
    norms_of
        L2 norm of a layer's weights per channel of a side.
    """
    return replace(plan, updates=tuple(_largest(update, norms_of(update.layer, "input")) for update in plan.updates))


def _largest(update: LayerUpdate, norms: NDArray[np.float64]) -> LayerUpdate:
    assert update.channels is not None
    if len(update.channels) == len(norms):
        return update
    best = np.lexsort((np.arange(len(norms)), -norms))[: len(update.channels)]
    return replace(update, channels=tuple(sorted(int(c) for c in best)))


METHODS.register(SparseUpdate.name, SparseUpdate())
