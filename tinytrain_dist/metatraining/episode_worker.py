"""``EpisodeWorker``: turns (weights, head, slot) into the gradient of one episode, or of several, or its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.backbones.head import accuracy
from tinytrain_dist.metatraining.episode_norm import separate_episodes
from tinytrain_dist.metatraining.episode_tensors import EpisodeTensors, episode_logits
from tinytrain_dist.metatraining.replica import Replica, SlotResult
from tinytrain_dist.metatraining.slots import Slot, SlotGroup


@dataclass(frozen=True, eq=False)
class _Episodes:
    """Episodes that pass the network together."""

    members: tuple[EpisodeTensors, ...]

    def to(self, device: torch.device) -> _Episodes:
        return _Episodes(tuple(member.to(device) for member in self.members))


class EpisodeWorker(Replica):
    """Worker of meta-training."""

    def learn(self, weights: FlatState, head: FlatState, slot: Slot | SlotGroup) -> SlotResult:
        """Return gradient, batch statistics, loss and accuracy of an episode, normalised by its own images.

        Of a group the means over its episodes, which pass the network together but are normalised each by its own.
        """
        self.load_for_training(weights)
        own_head = self.head(head)  # [1]: the scale
        found = self.load(slot)
        episodes = found.members if isinstance(found, _Episodes) else (found,)
        sizes = tuple(len(episode.images) for episode in episodes)
        separate_episodes(self.backbone, sizes)
        features = torch.split(self.features(_together([episode.images for episode in episodes])), list(sizes))
        logits = [episode_logits(own, episode, own_head[0]) for own, episode in zip(features, episodes, strict=True)]
        pairs = [(values, episode.labels) for values, episode in zip(logits, episodes, strict=True)]
        loss = torch.stack([functional.cross_entropy(*pair) for pair in pairs]).mean()
        rights = tuple(accuracy(values.detach(), labels) for values, labels in pairs)
        return self.result(loss=loss, head=own_head, accuracy=sum(rights) / len(rights), accuracies=rights)

    def prepare(self, slot: Any) -> Any:
        """Return the tensors of an episode, or of all episodes of a group."""
        if isinstance(slot, SlotGroup):
            return _Episodes(tuple(super(EpisodeWorker, self).prepare(member) for member in slot.slots))
        return super().prepare(slot)


def _together(images: Sequence[Tensor]) -> Tensor:
    return images[0] if len(images) == 1 else torch.cat(list(images))
