"""Values of ``backbone.weights`` that name no file; a run's record may hold any of them."""

from __future__ import annotations

from tinytrain_dist.backbones.shipped_weights import SHIPPED

AUTO = "auto"
"""The package's weights where it has some for the backbone, else random ones."""
RANDOM = "random"
PRETRAIN, META_TRAIN = "pretrain", "meta_train"
STAGES = (PRETRAIN, META_TRAIN)
"""Trainings that run first; what they made lies in their own run directories."""
WORDS = (AUTO, SHIPPED, RANDOM, *STAGES)
