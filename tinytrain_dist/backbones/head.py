"""The prototype head: class means, scaled cosine logits or squared Euclidean distances.

Source: ProtoNet (Snell et al., NeurIPS 2017) with the cosine metric of PMF (Hu et al., CVPR 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SCALE_DEFAULT = 10.0
EUCLIDEAN_SCALE = 1.0
"""Of the mean squared difference: on pre-trained weights about the confidence that the cosine has at scale 10."""


def class_means(features: Tensor, labels: Tensor, way: int) -> Tensor:
    """Return the mean feature of each class.

    Parameters
    ----------
    features
        Shape [S, F].
    labels
        Shape [S], int64 in 0..way-1; every class occurs.
    way
        Number of classes.

    Returns
    -------
    Tensor
        Shape [way, F].
    """
    # [S, way]; torch's one_hot would look at the labels, and on a GPU a look waits for all that is queued
    one_hot = (labels[:, None] == torch.arange(way, device=labels.device)).to(features.dtype)
    return one_hot.T @ features / one_hot.sum(0)[:, None]


def cosine_logits(features: Tensor, prototypes: Tensor, scale: Tensor | float = SCALE_DEFAULT) -> Tensor:
    """Return ``scale * cos(feature, prototype)``; shapes [Q, F], [way, F] -> [Q, way]."""
    return scale * functional.normalize(features, dim=1) @ functional.normalize(prototypes, dim=1).T


def euclidean_logits(features: Tensor, prototypes: Tensor, scale: float = EUCLIDEAN_SCALE) -> Tensor:
    """Return ``-scale * |feature - prototype|^2 / F``; shapes [Q, F], [way, F] -> [Q, way].

    ProtoNet's distance (Snell et al., Eq. 1 and 2) over the length of the feature, so that one scale suits all.
    """
    return -scale * (features[:, None, :] - prototypes[None, :, :]).square().mean(2)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit stands at the label."""
    return float((logits.argmax(1) == labels).to(torch.float64).mean())
