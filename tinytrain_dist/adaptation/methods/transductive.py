"""Method ``transductive``: the whole network, also on what the unlabelled query images say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinytrain_dist.adaptation.fine_tuning import EpisodeObjective, Objective
from tinytrain_dist.adaptation.methods.method import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.prototype_head import PrototypeHead
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.head import class_means
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.graphs.update_plan import full_plan


class TransductiveObjective(EpisodeObjective):
    """Cross-entropy of the pseudo-query plus the mean Shannon entropy of the query's predictions."""

    def states(self, task: TargetTask, *, cut: int, iteration: int) -> list[LayerState]:
        """Return support, pseudo-query and query."""
        return [*super().states(task, cut=cut, iteration=iteration), task.query_state(cut)]

    def loss(self, head: PrototypeHead, features: Sequence[Tensor]) -> Tensor:
        """Return cross-entropy + entropy, both in nats."""
        support, pseudo, query = features
        prototypes = class_means(support, head.support_labels, head.way)
        logarithms = torch.log_softmax(head.logits(query, prototypes), dim=1)
        entropy = -(logarithms.exp() * logarithms).sum(dim=1).mean()
        return head.loss(support, pseudo) + entropy


class Transductive(Method):
    """Transductive fine-tuning: one loss, the fine-tuning cross-entropy plus the entropy of the predictions on the
    unlabelled query, over all backbone weights in all iterations. It sees the query images: not a like for like.
    """

    name = "transductive"
    citation = "Dhillon et al., ICLR 2020 (arXiv 1909.02729)"
    is_full = True
    uses_query = True
    tuner = "transductive"

    def decide(self, question: PlanQuestion) -> Decision:
        """Return the plan of the whole network, whatever the device."""
        return Decision(status="ok", plan=full_plan(question.graph))

    def objective(self) -> Objective:
        """Return the loss on support and unlabelled query."""
        return TransductiveObjective()


METHODS.register(Transductive.name, Transductive())
