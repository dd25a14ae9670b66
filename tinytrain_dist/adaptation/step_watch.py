"""``StepWatch``: the losses of a tuning, and the first step after which a number was not finite.

To look at a value is to wait for it. On the CPU it is there, so every step is looked at; a GPU is still computing it
while the next steps could be queued, so there several steps are looked at together. Steps beyond the first bad one are
then computed in vain and forgotten: the outcome is the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STEPS_PER_LOOK = 10
"""On a GPU: a tuning that diverged runs at most so many steps further."""


class StepWatch:
    """Losses of the steps so far.

    Attributes
    ----------
    losses
        Loss of every step that was looked at, in nats; the last one is of the step that went wrong, where one did.
    """

    def __init__(self, device: torch.device) -> None:
        self.losses: tuple[float, ...] = ()
        self._per_look = 1 if device.type == "cpu" else STEPS_PER_LOOK
        self._unseen: list[tuple[Tensor, Tensor]] = []
        self._failed = False

    def add(self, loss: Tensor, is_finite: Tensor) -> None:
        """Remember a step: its loss, and whether the weights after it are finite; a number and a bool, ``[]`` each."""
        self._unseen.append((loss, is_finite))

    def has_failed(self, *, now: bool = False) -> bool:
        """Return whether a step is known to have gone wrong; ``now`` looks at all of them first."""
        if self._unseen and not self._failed and (now or len(self._unseen) >= self._per_look):
            losses, finite = (torch.stack(values).tolist() for values in zip(*self._unseen, strict=True))
            self._unseen = []
            for loss, is_finite in zip(losses, finite, strict=True):
                self.losses += (loss,)
                if not (is_finite and math.isfinite(loss)):
                    self._failed = True
                    break
        return self._failed
