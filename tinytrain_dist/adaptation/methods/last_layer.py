"""Method ``last_layer``: every weight of the last convolution.

ProtoNet has no classifier; the paper's memory matches the last convolution exactly (Table 7).
"""

from __future__ import annotations

from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan


class LastLayer(Method):
    """Fine-tunes the last convolution only: cheap, and the usual choice on small devices."""

    name = "last_layer"
    citation = "TinyTrain, ICML 2024, baseline LastLayer"

    def decide(self, question: PlanQuestion) -> Decision:
        """Return the plan of the last convolution, whatever the device."""
        last = question.graph.layers[-1].index
        return Decision(status="ok", plan=UpdatePlan(backbone=question.graph.name, updates=(LayerUpdate(layer=last),)))


METHODS.register(LastLayer.name, LastLayer())
