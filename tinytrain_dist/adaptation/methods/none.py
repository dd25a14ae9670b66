"""Method ``none``: prototypes of the frozen network, nothing is updated."""

from __future__ import annotations

from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion, arithmetic
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.graphs.update_plan import UpdatePlan


class NoUpdate(Method):
    """Nearest prototype without adaptation: the baseline every gain is counted from."""

    name = "none"
    citation = "Prototypical Networks, Snell et al., NeurIPS 2017"
    tuner = "none"

    def decide(self, question: PlanQuestion) -> Decision:
        """There is no plan to choose."""
        return Decision(status="not_applicable", plan=UpdatePlan(backbone=question.graph.name))

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        """Return the accuracy of the frozen network twice."""
        return Adaptation(accuracy_before=task.accuracy_before, accuracy_after=task.accuracy_before)

    def variant_settings(self, finetune: FineTuneSettings, selection: SelectionSettings) -> dict[str, object]:
        """The distance counts, and the arithmetic; a scale leaves the nearest prototype the nearest."""
        return {"distance": finetune.distance, **arithmetic(finetune)}


METHODS.register(NoUpdate.name, NoUpdate())
