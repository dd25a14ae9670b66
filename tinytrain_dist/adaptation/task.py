"""``TargetTask``: one episode on one checkpoint, and what its methods share.

Every random draw is seeded by the task and the iteration, never by the method or the worker: all methods
see the same augmented images, so their differences are paired.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.backbones.folded import FoldedNetwork, pool
from tinytrain_dist.backbones.head import accuracy, class_means, cosine_logits
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.data.episodes import Episode
from tinytrain_dist.data.transforms import augment, to_float, to_unit
from tinytrain_dist.foundation.seeding import seed_of


class TargetTask:
    """A target task bound to frozen weights.

    Parameters
    ----------
    task_id
        Identity of the episode; seeds every draw.
    episode
        Images ``[S, 3, R, R]`` and ``[Q, 3, R, R]`` as uint8 with labels 0..way-1.
    network
        Folded weights of the checkpoint.
    scale
        Factor of the cosine logits.
    """

    def __init__(
        self, task_id: str, *, episode: Episode, network: FoldedNetwork, settings: FineTuneSettings, scale: float
    ) -> None:
        self.task_id, self.episode, self.network, self.settings = task_id, episode, network, settings
        self.scale = settings.scale if settings.scale is not None else scale
        self.way = episode.way
        self.support_labels = torch.from_numpy(np.ascontiguousarray(episode.support_labels))
        self.query_labels = torch.from_numpy(np.ascontiguousarray(episode.query_labels))
        self._support_states: dict[int, LayerState] = {}
        self._query_states: dict[int, LayerState] = {}

    @cached_property
    def support_unit(self) -> Tensor:
        """Support images in [0, 1], the form augmentation works on, ``[S, 3, R, R]``."""
        return to_float(torch.from_numpy(self.episode.support_images)).to(self.network.dtype)

    @cached_property
    def support_input(self) -> Tensor:
        """Support images as network input, ``[S, 3, R, R]`` in [-1, 1]."""
        return _channels_last(to_unit(self.support_unit))

    @cached_property
    def query_input(self) -> Tensor:
        """Query images as network input, ``[Q, 3, R, R]`` in [-1, 1]."""
        unit = to_float(torch.from_numpy(self.episode.query_images))
        return _channels_last(to_unit(unit).to(self.network.dtype))

    def pseudo_query(self, purpose: str, iteration: int) -> Tensor:
        """Return the augmented copy of the support set for one iteration, as network input."""
        images = self.support_unit
        if self.settings.augment:
            generator = torch.Generator().manual_seed(seed_of(self.task_id, purpose, iteration))
            images = augment(images, generator)
        return _channels_last(to_unit(images))

    def support_state(self, cut: int) -> LayerState:
        """Return what layer ``cut`` receives for the support images; later cuts continue earlier ones."""
        return self._state(self._support_states, self.support_input, cut)

    def query_state(self, cut: int) -> LayerState:
        """Return what layer ``cut`` receives for the query images."""
        return self._state(self._query_states, self.query_input, cut)

    @torch.no_grad()
    def _state(self, states: dict[int, LayerState], images: Tensor, cut: int) -> LayerState:
        if cut not in states:
            nearest = max((c for c in states if c < cut), default=0)
            state = states[nearest] if nearest in states else LayerState(images)
            states[cut] = self.network.run(state, start=nearest, stop=cut)
        return states[cut]

    def loss(self, support_features: Tensor, pseudo_features: Tensor) -> Tensor:
        """Return the fine-tuning loss: cross-entropy of the pseudo-query against the support prototypes.

        The gradient flows through the prototypes as well (PMF, Hu et al., CVPR 2022).
        """
        prototypes = class_means(support_features, self.support_labels, self.way)
        logits = cosine_logits(pseudo_features, prototypes, self.scale)
        return torch.nn.functional.cross_entropy(logits, self.support_labels)

    def query_accuracy(self, support_features: Tensor, query_features: Tensor) -> float:
        """Return the share of query images nearest to their own class's prototype."""
        prototypes = class_means(support_features, self.support_labels, self.way)
        return accuracy(cosine_logits(query_features, prototypes, self.scale), self.query_labels)

    @cached_property
    def accuracy_before(self) -> float:
        """Query accuracy of the frozen network."""
        end = len(self.network.layers)
        with torch.no_grad():
            return self.query_accuracy(pool(self.support_state(end)), pool(self.query_state(end)))


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
