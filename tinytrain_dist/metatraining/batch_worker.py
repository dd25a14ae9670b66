"""``BatchWorker``: turns (weights, head, batch of views) into a gradient: the worker of pre-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.data.images import Pixels
from tinytrain_dist.data.transforms import Augmentation, apply_augmentation, to_float, to_unit
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.metatraining.compute import Compute
from tinytrain_dist.metatraining.objectives import Objective
from tinytrain_dist.metatraining.replica import Replica, SlotResult

SHIFT = 1 / 16
"""Largest translation of a view, of each side: small, since the teacher's answer is for the view as it was."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Views with their targets (``Objective.loss``), and the seed of their flips and shifts."""

    images: Pixels  # uint8 [B, 3, R, R]
    targets: npt.NDArray[np.float16] | npt.NDArray[np.int64]
    jitter_seed: int


class BatchWorker(Replica):
    """Worker of pre-training."""

    def __init__(
        self, backbone: str, resolution: int, roots: tuple[str, ...], compute: Compute, objective: Objective
    ) -> None:
        super().__init__(backbone, resolution, roots, compute)
        self._objective = objective

    def learn(self, weights: FlatState, head: FlatState, batch: Batch) -> SlotResult:
        """Return gradient, batch statistics, loss and share of right answers of one batch."""
        self.load_for_training(weights)
        own_head = self.head(head)
        targets = torch.tensor(batch.targets, device=self.device)
        targets = targets.float() if targets.is_floating_point() else targets
        images: Tensor = self.load(batch)
        loss, right = self._objective.loss(self.features(images), own_head, targets)
        return self.result(loss=loss, head=own_head, accuracy=right)

    def prepare(self, slot: Any) -> Any:
        """Return the network's input of a batch, or the tensors of a validation episode."""
        return _jittered(slot) if isinstance(slot, Batch) else super().prepare(slot)


def _jittered(batch: Batch) -> Tensor:
    """Return the network's input ``[B, 3, R, R]``: half the views mirrored, all moved by a few pixels."""
    count, _, height, width = batch.images.shape
    u = torch.from_numpy(generator_of("jitter", batch.jitter_seed).random((count, 3)))
    limits = torch.tensor([int(height * SHIFT), int(width * SHIFT)])
    draws = Augmentation(
        flipped=u[:, 0] < 0.5, brightness=torch.zeros(count), saturation=torch.ones(count),
        contrast=torch.ones(count), shift=(u[:, 1:] * (2 * limits + 1)).long() - limits,
    )  # fmt: skip
    images = apply_augmentation(to_float(torch.tensor(batch.images)), draws=draws)
    return to_unit(images).contiguous(memory_format=torch.channels_last)
