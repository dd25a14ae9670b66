"""What a pre-training minimises: joint classification of the source classes, or the imitation of a teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.backbones.head import accuracy, cosine_logits
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.metatraining.pretrain_settings import ObjectiveName


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss over features, with a head ``[scale, matrix]`` that is thrown away after the training.

    Attributes
    ----------
    name
        ``supervised`` or ``distill``.
    num_outputs
        Rows of the matrix: classes, or features of the teacher.
    temperature, relation_weight
        Of ``distill`` (``PretrainSettings``).
    """

    name: ObjectiveName
    num_outputs: int
    temperature: float = 0.1
    relation_weight: float = 1.0

    def initial_head(self, num_features: int, *, scale: float, seed: int) -> FlatState:
        """Return float32 [1 + num_outputs * num_features]."""
        draw = generator_of("pretrain_head", seed).standard_normal(self.num_outputs * num_features)
        return np.concatenate([[scale], draw / num_features**0.5]).astype(np.float32)

    def loss(self, features: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Return the mean loss of features ``[B, F]`` and the share of right answers.

        ``targets`` are classes int64 ``[B]``, or the teacher's unit features ``[B, num_outputs]``.
        """
        matrix = head[1:].view(self.num_outputs, features.shape[1])
        if self.name == "supervised":
            logits = cosine_logits(features, matrix, head[0])
            return functional.cross_entropy(logits, targets), accuracy(logits.detach(), targets)
        return self._imitation(features, matrix, head[0], targets)

    def _imitation(self, features: Tensor, matrix: Tensor, scale: Tensor, teacher: Tensor) -> tuple[Tensor, float]:
        """Features: 1 - cos(matrix f, t). Relations: KL of each image's similarities to the others of its batch.

        The relations are of the student's own features under the cosine that the prototype head uses, so that what
        is trained is what nearest prototypes read.
        Source: SEED (Fang et al., ICLR 2021) for the relations; FitNets (Romero et al., ICLR 2015) for the matrix.
        """
        regression = (1 - functional.cosine_similarity(functional.linear(features, matrix), teacher, dim=1)).mean()
        itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
        wanted = (teacher @ teacher.T / self.temperature).masked_fill(itself, -torch.inf)
        found = cosine_logits(features, features, scale).masked_fill(itself, -torch.inf)
        log_wanted, log_found = (logits.log_softmax(1).masked_fill(itself, 0.0) for logits in (wanted, found))
        relation = (log_wanted.exp().masked_fill(itself, 0.0) * (log_wanted - log_found)).sum(1).mean()
        return regression + self.relation_weight * relation, accuracy(found.detach(), wanted.argmax(1))
