"""``TargetTask``: one episode on one checkpoint, and what its methods share.

Every random draw is seeded by the task and the iteration, never by the method or the worker: all methods
see the same augmented images, so their differences are paired.
"""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from tinytrain_dist.adaptation.numerics import check_machine, type_of_maps
from tinytrain_dist.adaptation.prefix_cache import ImageSet, PrefixCache
from tinytrain_dist.adaptation.prototype_head import PrototypeHead
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.backbones.folded import FoldedNetwork, pool
from tinytrain_dist.backbones.head import EUCLIDEAN_SCALE, accuracy, class_means
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.data.episodes import Episode
from tinytrain_dist.data.transforms import augment, to_float, to_unit
from tinytrain_dist.foundation.errors import DataError, ExitCode, TinyTrainError
from tinytrain_dist.foundation.seeding import seed_of

WORTH_KEEPING = 0.5
"""A pseudo-query's state is kept where it is smaller than this share of its images."""


class NotFiniteError(TinyTrainError):
    """What the weights make of a task is no number: its rows are ``diverged``, as of a tuning that came to nothing."""

    exit_code = ExitCode.BAD_INPUT


class TargetTask:
    """A target task bound to frozen weights.

    Parameters
    ----------
    task_id
        Identity of the episode; seeds every draw.
    episode
        Images ``[S, 3, R, R]`` and ``[Q, 3, R, R]`` as uint8 with labels 0..way-1. Raises ``DataError`` where there
        are fewer than two classes, or a class has no support image: there is nothing to tell apart, or no prototype.
    network
        Folded weights of the checkpoint, on the settings' device.
    settings
        Raises ``ConfigError`` where this machine lacks their ``device`` or cannot compute in their ``numerics``.
    scale
        The checkpoint's factor of the cosine logits.
    """

    def __init__(
        self, task_id: str, *, episode: Episode, network: FoldedNetwork, settings: FineTuneSettings, scale: float
    ) -> None:
        _check_support(task_id, episode)
        self.task_id, self.episode, self.network, self.settings = task_id, episode, network, settings
        default = scale if settings.distance == "cosine" else EUCLIDEAN_SCALE
        self.scale = settings.scale if settings.scale is not None else default
        check_machine(settings)
        assert network.device.type == settings.device, f"network on {network.device}, settings say {settings.device}"
        self._type = type_of_maps(settings.numerics, weights=network.dtype)
        self.way = episode.way
        self.support_labels, self.query_labels = (
            torch.from_numpy(np.ascontiguousarray(labels)).to(network.device)
            for labels in (episode.support_labels, episode.query_labels)
        )
        self._prefix = PrefixCache(network)

    @cached_property
    def support_unit(self) -> Tensor:
        """Support images in [0, 1], the form augmentation works on, ``[S, 3, R, R]`` on the CPU."""
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

        In mode ``reference`` every iteration has its own; in mode ``fast`` a pool of them is used in turn.
        """
        images = self.support_unit
        if self.settings.augment:
            generator = torch.Generator().manual_seed(seed_of(self.task_id, "view", self._view_of(iteration)))
            images = augment(images, generator)
        return self._input(to_unit(images))

    def _input(self, images: Tensor) -> Tensor:
        """Return images as the first layer takes them: everything after follows their type and their device."""
        return _channels_last(images).to(device=self.network.device, dtype=self._type)

    def _view_of(self, iteration: int) -> int:
        if not self.settings.augment:
            return 0
        return iteration if self.settings.mode == "reference" else iteration % self.settings.pool_views

    def pseudo_state(self, iteration: int, cut: int) -> LayerState:
        """Return what layer ``cut`` receives for an iteration's pseudo-query."""
        name = self._view_name(iteration)
        limit = int(WORTH_KEEPING * self.support_unit.numel() * self.support_unit.element_size())
        return self._prefix.state(name, cut, images=lambda: self.view(iteration), limit_bytes=limit)

    def _view_name(self, iteration: int) -> str:
        return f"view {self._view_of(iteration)}"

    def image_sets(self, *, iterations: int) -> list[ImageSet]:
        """Return every set of images that a tuning of so many iterations asks states of."""
        views = {self._view_name(i): partial(self.view, i) for i in range(iterations)}
        inputs = {"support": lambda: self.support_input, "query": lambda: self.query_input}
        return [ImageSet(self._prefix, name, images) for name, images in (inputs | views).items()]

    def support_state(self, cut: int) -> LayerState:
        """Return what layer ``cut`` receives for the support images."""
        return self._prefix.state("support", cut, images=lambda: self.support_input)

    def query_state(self, cut: int) -> LayerState:
        """Return what layer ``cut`` receives for the query images."""
        return self._prefix.state("query", cut, images=lambda: self.query_input)

    @property
    def head(self) -> PrototypeHead:
        """The head, which is all that a loss may know of the task."""
        return PrototypeHead(
            support_labels=self.support_labels, way=self.way, scale=self.scale, distance=self.settings.distance
        )

    def loss(self, support_features: Tensor, pseudo_features: Tensor) -> Tensor:
        """Return the fine-tuning loss (``PrototypeHead.loss``)."""
        return self.head.loss(support_features, pseudo_features)

    def logits(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Return the head's logits, ``[N, F]`` and ``[way, F]`` -> ``[N, way]``."""
        return self.head.logits(features, prototypes)

    def query_accuracy(self, support_features: Tensor, query_features: Tensor) -> float:
        """Return the share of query images nearest to their own class's prototype."""
        prototypes = class_means(support_features, self.support_labels, self.way)
        return accuracy(self.logits(query_features, prototypes), self.query_labels)

    @cached_property
    def accuracy_before(self) -> float:
        """Query accuracy of the frozen network; raises ``NotFiniteError`` where its features tell nothing."""
        end = len(self.network.layers)
        with torch.no_grad():
            support, query = pool(self.support_state(end)), pool(self.query_state(end))
            if not (_are_usable(support) & _are_usable(query)):
                raise NotFiniteError(
                    f"{self.task_id}: the frozen network makes features of this task's images that are not finite, or "
                    "too large to compare; the weights are at fault, no setting of the fine-tuning"
                )
            return self.query_accuracy(support, query)


def _are_usable(features: Tensor) -> Tensor:
    """Return whether every feature vector has a finite length, ``[N, F]`` -> ``[]``: NaN would count as class 0."""
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1)
    return lengths.isfinite().all()


def _check_support(task_id: str, episode: Episode) -> None:
    """Raise ``DataError`` unless at least two classes, and every class 0..way-1, have support images."""
    found = sorted({int(label) for label in episode.support_labels})
    if episode.way < 2:
        raise DataError(f"{task_id}: an episode of {episode.way} class; a task tells at least 2 classes apart")
    if found != list(range(episode.way)):
        missing = sorted(set(range(episode.way)) - set(found))
        wrong = f"support labels {found}" + (f", no support image of class {missing[0]}" if missing else "")
        raise DataError(f"{task_id}: {wrong}; each of the classes 0 to {episode.way - 1} needs one")


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
