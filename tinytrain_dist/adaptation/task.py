"""``TargetTask``: one episode on one checkpoint, and what its methods share.

Every random draw is seeded by the task and the iteration, never by the method or the worker: all methods
see the same augmented images, so their differences are paired.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tinytrain_dist.adaptation.numerics import check_numerics, type_of_maps
from tinytrain_dist.adaptation.prefix_cache import PrefixCache
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.view_pool import WORTH_KEEPING, ViewPool, gathered, is_worth_keeping
from tinytrain_dist.backbones.folded import FoldedNetwork, pool
from tinytrain_dist.backbones.head import EUCLIDEAN_SCALE, accuracy, class_means, cosine_logits, euclidean_logits
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.data.episodes import Episode
from tinytrain_dist.data.transforms import Augmentation, apply_augmentation, draw_augmentation, to_float, to_unit
from tinytrain_dist.foundation.seeding import generator_of, seed_of


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
    settings
        Raises ``ConfigError`` where this machine cannot compute in their ``numerics``.
    scale
        The checkpoint's factor of the cosine logits.
    """

    def __init__(
        self, task_id: str, *, episode: Episode, network: FoldedNetwork, settings: FineTuneSettings, scale: float
    ) -> None:
        self.task_id, self.episode, self.network, self.settings = task_id, episode, network, settings
        default = scale if settings.distance == "cosine" else EUCLIDEAN_SCALE
        self.scale = settings.scale if settings.scale is not None else default
        check_numerics(settings.numerics)
        self._type = type_of_maps(settings.numerics, weights=network.dtype)
        self.way = episode.way
        self.support_labels = torch.from_numpy(np.ascontiguousarray(episode.support_labels))
        self.query_labels = torch.from_numpy(np.ascontiguousarray(episode.query_labels))
        self._prefix = PrefixCache(network)

    @cached_property
    def support_unit(self) -> Tensor:
        """Support images in [0, 1], the form augmentation works on, ``[S, 3, R, R]``."""
        return _channels_last(to_float(torch.from_numpy(self.episode.support_images)).to(self.network.dtype))

    @cached_property
    def support_input(self) -> Tensor:
        """Support images as network input, ``[S, 3, R, R]`` in [-1, 1]."""
        return self._input(to_unit(self.support_unit))

    @cached_property
    def query_input(self) -> Tensor:
        """Query images as network input, ``[Q, 3, R, R]`` in [-1, 1]."""
        unit = to_float(torch.from_numpy(self.episode.query_images))
        return self._input(to_unit(unit).to(self.network.dtype))

    def view(self, iteration: int) -> Tensor:
        """Return the augmented copy of the support set that iteration trains on, as network input.

        In mode ``reference`` every iteration draws its own. In mode ``fast`` ``pool_views`` of them are drawn, and an
        iteration takes every image from one of them.
        """
        picks = self._picks(iteration)
        return self._augmented(self._drawn(iteration) if picks is None else self._pool.of(picks))

    def _augmented(self, draws: Augmentation) -> Tensor:
        images = self.support_unit
        return self._input(to_unit(apply_augmentation(images, draws=draws) if self.settings.augment else images))

    def _drawn(self, number: int) -> Augmentation:
        """Return the random numbers of one view."""
        count, _, height, width = self.support_unit.shape
        generator = torch.Generator().manual_seed(seed_of(self.task_id, "view", number))
        return draw_augmentation(count, height=height, width=width, generator=generator)

    def _input(self, images: Tensor) -> Tensor:
        """Return images as the first layer takes them: everything after follows their type."""
        return _channels_last(images).to(self._type)

    @cached_property
    def _pool(self) -> ViewPool:
        return ViewPool([self._drawn(number) for number in range(self.settings.pool_views)])

    def _picks(self, iteration: int) -> Tensor | None:
        """Return which view of the pool each image is taken from, int64 ``[S]``; ``None``: there is no pool.

        Every ``pool_views`` iterations each image goes through all views, in an order of its own.
        """
        if self.settings.mode == "reference" or not self.settings.augment:
            return None
        num_views, count = self.settings.pool_views, len(self.support_labels)
        turn, place = divmod(iteration, num_views)
        keys = generator_of(self.task_id, "pool", turn).random((num_views, count))
        if turn == 0:
            keys[0] = -1.0  # all begin with the first view: what the Fisher pass sees, in either mode
        return torch.from_numpy(keys.argsort(axis=0)[place])

    def pseudo_state(self, iteration: int, cut: int) -> LayerState:
        """Return what layer ``cut`` receives for an iteration's pseudo-query."""
        picks = self._picks(iteration)
        if picks is None:
            name = f"view {iteration if self.settings.augment else 0}"
            limit = int(WORTH_KEEPING * self.support_unit.numel() * self.support_unit.element_size())
            return self._prefix.state(name, cut, images=lambda: self.view(iteration), limit_bytes=limit)
        if not is_worth_keeping(self.network.graph, cut, images=len(picks) * self.settings.pool_views):
            return self._prefix.run(self.view(iteration), cut)
        return gathered(picks, lambda number: self._pool_state(number, cut))

    def _pool_state(self, number: int, cut: int) -> LayerState:
        """Return what layer ``cut`` receives for one view of the pool."""
        return self._prefix.state(f"view {number}", cut, images=lambda: self._augmented(self._pool[number]))

    def support_state(self, cut: int) -> LayerState:
        """Return what layer ``cut`` receives for the support images."""
        return self._prefix.state("support", cut, images=lambda: self.support_input)

    def query_state(self, cut: int) -> LayerState:
        """Return what layer ``cut`` receives for the query images."""
        return self._prefix.state("query", cut, images=lambda: self.query_input)

    def loss(self, support_features: Tensor, pseudo_features: Tensor) -> Tensor:
        """Return the fine-tuning loss: cross-entropy of the pseudo-query against the support prototypes.

        The gradient flows through the prototypes as well (PMF, Hu et al., CVPR 2022).
        """
        prototypes = class_means(support_features, self.support_labels, self.way)
        return torch.nn.functional.cross_entropy(self.logits(pseudo_features, prototypes), self.support_labels)

    def logits(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Return the head's logits, ``[N, F]`` and ``[way, F]`` -> ``[N, way]``."""
        if self.settings.distance == "euclidean":
            return euclidean_logits(features, prototypes, self.scale)
        return cosine_logits(features, prototypes, self.scale)

    def query_accuracy(self, support_features: Tensor, query_features: Tensor) -> float:
        """Return the share of query images nearest to their own class's prototype."""
        prototypes = class_means(support_features, self.support_labels, self.way)
        return accuracy(self.logits(query_features, prototypes), self.query_labels)

    @cached_property
    def accuracy_before(self) -> float:
        """Query accuracy of the frozen network."""
        end = len(self.network.layers)
        with torch.no_grad():
            return self.query_accuracy(pool(self.support_state(end)), pool(self.query_state(end)))


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
