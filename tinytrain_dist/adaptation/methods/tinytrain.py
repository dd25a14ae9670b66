"""Method ``tinytrain``: layers and channels chosen per task by Fisher information, inside the device's budget."""

from __future__ import annotations

from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision, SelectionInput, select_plan
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings


class TinyTrain(Method):
    """Task-adaptive sparse update: one backward pass measures which channels matter for this task (Eq. 2),
    a score weighs them against their cost (Eq. 3), and only what the budget holds is fine-tuned (Algorithm 1).
    """

    name = "tinytrain"
    citation = "TinyTrain, ICML 2024 (arXiv 2307.09988)"
    has_budget = True
    measures_fisher = True

    def decide(self, question: PlanQuestion) -> Decision:
        """Return the plan Algorithm 1 chooses for the device's budget, or ``infeasible``."""
        delta = question.fisher().channels
        given = SelectionInput(
            graph=question.graph,
            delta=delta,
            weight_norms={layer: question.weight_norm(layer) for layer in delta},
            channel_norms=question.channel_norms,
            budget=question.budget,
            memory_of=question.memory_of,
            settings=question.settings,
            task_id=question.task_id,
            device=question.device,
        )
        return select_plan(given)

    def variant_settings(self, finetune: FineTuneSettings, selection: SelectionSettings) -> dict[str, object]:
        """Training settings and how layers are chosen, budgets included."""
        return super().variant_settings(finetune, selection) | selection.of_selection()


METHODS.register(TinyTrain.name, TinyTrain())
