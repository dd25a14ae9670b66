"""``EpisodeWorker``: turns (weights, head, slot) into the gradient of one episode, or into its accuracy."""

from __future__ import annotations

import torch
from torch.nn import functional

from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.backbones.head import accuracy
from tinytrain_dist.metatraining.episode_tensors import EpisodeTensors, episode_logits
from tinytrain_dist.metatraining.replica import Replica, SlotResult
from tinytrain_dist.metatraining.slots import Slot


class EpisodeWorker(Replica):
    """Worker of meta-training."""

    def learn(self, weights: FlatState, head: FlatState, slot: Slot) -> SlotResult:
        """Return gradient, batch statistics, loss and accuracy of one episode, normalised by its own images."""
        self.load_for_training(weights)
        own_head = torch.tensor(head, requires_grad=True)  # [1]: the scale
        episode: EpisodeTensors = self.load(slot)
        logits = episode_logits(self.backbone, episode, own_head[0])
        loss = functional.cross_entropy(logits, episode.labels)
        return self.result(loss=loss, head=own_head, accuracy=accuracy(logits.detach(), episode.labels))
