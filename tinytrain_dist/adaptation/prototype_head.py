"""``PrototypeHead``: what the loss of a task may know of it, so that several tasks' losses can be made together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from tinytrain_dist.adaptation.settings import Distance
from tinytrain_dist.backbones.head import class_means, cosine_logits, euclidean_logits


@dataclass(frozen=True, kw_only=True, eq=False)
class PrototypeHead:
    """The nearest-prototype head of a task.

    Attributes
    ----------
    support_labels
        Shape [S], int64 in 0..way-1.
    scale
        Factor of the logits.
    """

    support_labels: Tensor
    way: int
    scale: float
    distance: Distance

    def loss(self, support_features: Tensor, pseudo_features: Tensor) -> Tensor:
        """Return the fine-tuning loss: cross-entropy of the pseudo-query against the support prototypes.

        The gradient flows through the prototypes as well (PMF, Hu et al., CVPR 2022).
        """
        prototypes = class_means(support_features, self.support_labels, self.way)
        return cross_entropy(self.logits(pseudo_features, prototypes), self.support_labels)

    def logits(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Return the head's logits, ``[N, F]`` and ``[way, F]`` -> ``[N, way]``."""
        if self.distance == "euclidean":
            return euclidean_logits(features, prototypes, self.scale)
        return cosine_logits(features, prototypes, self.scale)
