"""Method ``full_train``: every weight and every normalisation parameter (PMF's fine-tuning)."""

from __future__ import annotations

from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.graphs.update_plan import full_plan


class FullTrain(Method):
    """Fine-tunes the whole network: the most accurate and by far the most expensive baseline."""

    name = "full_train"
    citation = "P>M>F, Hu et al., CVPR 2022; TinyTrain, ICML 2024, baseline FullTrain"
    is_full = True

    def decide(self, question: PlanQuestion) -> Decision:
        """Return the plan of the whole network, whatever the device."""
        return Decision(status="ok", plan=full_plan(question.graph))


METHODS.register(FullTrain.name, FullTrain())
