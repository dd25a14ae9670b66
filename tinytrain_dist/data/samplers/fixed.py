"""Fixed way and shot: the same number of classes and of support images in every episode."""

from __future__ import annotations

import numpy as np

from tinytrain_dist.data.samplers.class_pool import ClassPool, EpisodeShape, permutation
from tinytrain_dist.data.samplers.settings import EpisodeSettings
from tinytrain_dist.foundation.errors import DataError


def draw_shape(pool: ClassPool, *, settings: EpisodeSettings, rng: np.random.Generator) -> EpisodeShape:
    """Draw the classes; query images per class are what the settings ask for or what the class has left.

    Classes with fewer than ``shot + 1`` images are left out.

    Raises
    ------
    DataError
        Fewer classes than ``way`` (or than two), with the counts.
    """
    usable = pool.at_least(settings.shot + 1)
    way = _way(pool, usable, settings)
    order = permutation(rng, len(usable))[:way].tolist()
    return EpisodeShape(
        class_ids=tuple(usable.class_ids[i] for i in order),
        shots=(settings.shot,) * way,
        queries=tuple(min(settings.query, usable.sizes[i] - settings.shot) for i in order),
    )


def _way(pool: ClassPool, usable: ClassPool, settings: EpisodeSettings) -> int:
    way = min(settings.way, len(usable)) if settings.clamp_way else settings.way
    if len(usable) < 2 or way > len(usable):
        advice = f"set way to {len(usable)} or less, clamp_way to true," if len(usable) >= 2 else "lower shot"
        raise DataError(
            f"{pool.name}: {len(usable)} of {len(pool)} classes have the {settings.shot + 1} images that "
            f"shot {settings.shot} needs, way is {settings.way}; {advice} or choose a larger domain"
        )
    return way
