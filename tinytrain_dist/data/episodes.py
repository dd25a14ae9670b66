"""Episodes: a spec of a few integers travels; the draw and the pixels are made where they are needed.

An episode is a pure function of (domain content hash, split, sampler settings, seed, index).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinytrain_dist.data.domain import Domain, SplitName
from tinytrain_dist.data.images import Pixels
from tinytrain_dist.data.samplers import fixed, meta_dataset
from tinytrain_dist.data.samplers.class_pool import ClassPool, permutation
from tinytrain_dist.data.samplers.settings import EpisodeSettings, SamplerName
from tinytrain_dist.foundation.errors import DataError
from tinytrain_dist.foundation.seeding import generator_of

__all__ = [
    "Episode",
    "EpisodeIndices",
    "EpisodeSettings",
    "EpisodeSpec",
    "SamplerName",
    "check_episodes",
    "draw_episode",
    "load_episode",
]

Ints = npt.NDArray[np.int64]
_SAMPLERS = {"fixed": fixed.draw_shape, "meta_dataset": meta_dataset.draw_shape}


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """Everything that decides an episode, and nothing else; ``domain_hash`` says which data it was made for."""

    domain: str
    domain_hash: str
    split: SplitName
    settings: EpisodeSettings
    seed: int
    index: int

    @classmethod
    def of(cls, domain: Domain, *, split: SplitName, settings: EpisodeSettings, seed: int, index: int) -> EpisodeSpec:
        """Return the spec of one episode of an opened domain."""
        return cls(
            domain=domain.name, domain_hash=domain.content_hash, split=split, settings=settings, seed=seed, index=index
        )

    @property
    def task_id(self) -> str:
        """Name of the task, such as ``signs/test/fixed-5w5s10q/s0/17``."""
        return f"{self.domain}/{self.split}/{self.settings.key}/s{self.seed}/{self.index}"


@dataclass(frozen=True, eq=False)
class EpisodeIndices:
    """The pure draw: per class (in the order of the episode's labels) its id, support and query image indices."""

    class_ids: tuple[int, ...]
    support: tuple[Ints, ...]
    query: tuple[Ints, ...]


@dataclass(frozen=True, eq=False)
class Episode:
    """One few-shot task in memory. S support and Q query images, grouped by class, labels 0 .. way-1."""

    support_images: Pixels  # uint8 [S, 3, R, R]
    support_labels: Ints  # int64 [S]
    query_images: Pixels  # uint8 [Q, 3, R, R]
    query_labels: Ints  # int64 [Q]
    way: int
    shots: tuple[int, ...]  # [way]


def draw_episode(domain: Domain, spec: EpisodeSpec) -> EpisodeIndices:
    """Draw the images of an episode; no image stands twice in it.

    Raises
    ------
    DataError
        The domain is not the one the spec was made for, or it cannot satisfy the settings (with the counts).
    """
    if spec.domain_hash != domain.content_hash:
        raise DataError(
            f"domain {domain.name!r} has content {domain.content_hash}, the task {spec.task_id} was made for "
            f"{spec.domain_hash}; use the same domain file"
        )
    rng = generator_of("episode", domain.content_hash, spec.split, spec.settings.key, spec.seed, spec.index)
    shape = _SAMPLERS[spec.settings.sampler](_pool(domain, spec.split), settings=spec.settings, rng=rng)
    support, query = [], []
    for class_id, shot, num_query in zip(shape.class_ids, shape.shots, shape.queries, strict=True):
        images = domain.class_images(class_id)
        order = images[permutation(rng, len(images))]
        support.append(order[:shot])
        query.append(order[shot : shot + num_query])
    return EpisodeIndices(class_ids=shape.class_ids, support=tuple(support), query=tuple(query))


def load_episode(domain: Domain, spec: EpisodeSpec, *, resolution: int) -> Episode:
    """Draw an episode and load its pixels; raises ``DataError`` as ``draw_episode`` and ``Domain.images`` do."""
    drawn = draw_episode(domain, spec)
    return Episode(
        support_images=domain.images(np.concatenate(drawn.support), resolution=resolution),
        support_labels=_episode_labels(drawn.support),
        query_images=domain.images(np.concatenate(drawn.query), resolution=resolution),
        query_labels=_episode_labels(drawn.query),
        way=len(drawn.class_ids),
        shots=tuple(len(images) for images in drawn.support),
    )


def check_episodes(domain: Domain, *, split: SplitName, settings: EpisodeSettings) -> None:
    """Raise ``DataError`` now if the domain cannot satisfy the settings, rather than in the middle of a run."""
    rng = generator_of("check")
    _SAMPLERS[settings.sampler](_pool(domain, split), settings=settings, rng=rng)


def _pool(domain: Domain, split: SplitName) -> ClassPool:
    classes = domain.classes(split)
    name = f"domain {domain.name!r}, split {split}"
    if not classes:
        sizes = ", ".join(f"{own} {count}" for own, count in domain.split_sizes().items())
        raise DataError(f"{name}: no classes; classes per split: {sizes}")
    supers = domain.superclasses
    return ClassPool(
        name=name,
        class_ids=classes,
        sizes=tuple(int(domain.class_sizes[c]) for c in classes),
        superclasses=None if supers is None else tuple(supers[c] for c in classes),
    )


def _episode_labels(images_per_class: Sequence[Ints]) -> Ints:
    return np.repeat(np.arange(len(images_per_class), dtype=np.int64), [len(images) for images in images_per_class])
