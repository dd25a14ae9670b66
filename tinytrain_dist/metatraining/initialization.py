"""Weights and head scale that a training starts from: a checkpoint's, or drawn from the seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import checkpoint_hash, load_checkpoint
from tinytrain_dist.backbones.flat_state import FlatState, state_to_flat
from tinytrain_dist.backbones.network import Backbone, build_backbone
from tinytrain_dist.metatraining.training_settings import TrainingSettings


@dataclass(frozen=True, eq=False, kw_only=True)
class InitialWeights:
    """Where a training starts; ``hash`` stands for it in the run's identity, ``card`` is the checkpoint's, if one."""

    weights: FlatState
    scale: float
    hash: str
    card: CheckpointCard | None = None


def initial_weights(settings: TrainingSettings) -> InitialWeights:
    """Return the weights to start from; raises ``CheckpointError`` for a file that does not fit the backbone."""
    backbone = build_backbone(settings.backbone, resolution=settings.resolution, seed=settings.seed)
    if (path := settings.initial_path()) is not None:
        found = load_checkpoint(path, backbone=settings.backbone)
        scale = found.head_scale or settings.scale
        return InitialWeights(weights=found.state, scale=scale, hash=found.hash, card=found.card)
    close_residual_branches(backbone)
    weights = state_to_flat(backbone)
    return InitialWeights(
        weights=weights, scale=settings.scale, hash=checkpoint_hash(backbone.graph, weights, head_scale=settings.scale)
    )


@torch.no_grad()
def close_residual_branches(backbone: Backbone) -> None:
    """Set the last normalisation scale of every residual branch to 0, so that training starts in a shallow network.

    Without it a random 52-layer network maps all classes to one point and a few hundred episodes teach it nothing.
    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017 (arXiv 1706.02677), section 5.1.
    """
    for layer in backbone.graph.layers:
        if layer.residual_after:
            backbone.unit(layer.index).norm.weight.zero_()
