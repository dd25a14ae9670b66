"""An episode as the network's input, and its ProtoNet logits.

Source: ProtoNet episodes (Snell et al., NeurIPS 2017) with the cosine head of PMF (Hu et al., CVPR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinytrain_dist.backbones.head import class_means, cosine_logits
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import Episode, load_episode
from tinytrain_dist.data.transforms import augment, to_float, to_unit
from tinytrain_dist.metatraining.slots import Slot


@dataclass(frozen=True, eq=False, kw_only=True)
class EpisodeTensors:
    """Images ``[S + Q, 3, R, R]`` in [-1, 1], support first; labels of support ``[S]`` and query ``[Q]``."""

    images: Tensor
    support_labels: Tensor
    labels: Tensor
    way: int

    def to(self, device: torch.device) -> EpisodeTensors:
        """Return it on a device."""
        return EpisodeTensors(
            images=self.images.to(device), support_labels=self.support_labels.to(device),
            labels=self.labels.to(device), way=self.way,
        )  # fmt: skip


def load_slot(slot: Slot, *, resolution: int, roots: tuple[str, ...] = ()) -> EpisodeTensors:
    """Return the episode of ``slot``, augmented if it says so; domain and decoded images are kept by the process."""
    episode = load_episode(open_domain(slot.spec.domain, roots=roots), slot.spec, resolution=resolution)
    return EpisodeTensors(
        images=_network_input(episode, slot.augmentation_seed), way=episode.way,
        support_labels=torch.from_numpy(episode.support_labels), labels=torch.from_numpy(episode.query_labels),
    )  # fmt: skip


def episode_logits(features: Tensor, episode: EpisodeTensors, scale: Tensor) -> Tensor:
    """Return query logits ``[Q, way]`` from the features ``[S + Q, F]`` of the episode's images."""
    num_support = len(episode.support_labels)
    prototypes = class_means(features[:num_support], episode.support_labels, episode.way)
    return cosine_logits(features[num_support:], prototypes, scale)


def _network_input(episode: Episode, augmentation_seed: int | None) -> Tensor:
    pixels = torch.from_numpy(np.concatenate([episode.support_images, episode.query_images]))
    if augmentation_seed is None:
        images = to_unit(pixels)
    else:
        images = to_unit(augment(to_float(pixels), torch.Generator().manual_seed(augmentation_seed)))
    return images.contiguous(memory_format=torch.channels_last)
