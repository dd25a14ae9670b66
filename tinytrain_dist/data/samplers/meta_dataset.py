"""Meta-Dataset's sampler: way and shots vary between episodes, shots also between classes.

Source: Triantafillou et al., "Meta-Dataset", ICLR 2020, section 3.2 and appendix.
"""

from __future__ import annotations

import math

import numpy as np

from tinytrain_dist.data.samplers.class_pool import ClassPool, EpisodeShape, integer, permutation
from tinytrain_dist.data.samplers.settings import EpisodeSettings
from tinytrain_dist.foundation.errors import DataError

MIN_WAY, MAX_WAY = 5, 50
MAX_QUERY = 10
MAX_SUPPORT = 500
MAX_SUPPORT_PER_CLASS = 100


def draw_shape(pool: ClassPool, *, settings: EpisodeSettings, rng: np.random.Generator) -> EpisodeShape:
    """Draw way, classes, query size, support size and shots, in this order.

    A domain of two levels first draws a superclass with at least five classes. Classes of one image are left out.

    Raises
    ------
    DataError
        Fewer than five usable classes, with the counts.
    """
    del settings
    level = _level(pool, rng)
    way = integer(rng, MIN_WAY, min(MAX_WAY, len(level)))
    order = permutation(rng, len(level))[:way].tolist()
    sizes = [level.sizes[i] for i in order]
    query = min(MAX_QUERY, min(sizes) // 2)
    support = support_size(sizes, query=query, beta=rng.random())
    alphas = math.log(0.5) + rng.random(way) * (math.log(2.0) - math.log(0.5))
    shots = draw_shots(sizes, query=query, support=support, alphas=alphas.tolist())
    return EpisodeShape(class_ids=tuple(level.class_ids[i] for i in order), shots=shots, queries=(query,) * way)


def support_size(sizes: list[int], *, query: int, beta: float) -> int:
    """Return |S| = min(500, sum_c floor(beta * min(100, n_c - q) + 1)) for beta in [0, 1)."""
    return min(MAX_SUPPORT, sum(int(beta * min(MAX_SUPPORT_PER_CLASS, n - query)) + 1 for n in sizes))


def draw_shots(sizes: list[int], *, query: int, support: int, alphas: list[float]) -> tuple[int, ...]:
    """Return k_c = min(floor(R_c * (|S| - N)) + 1, n_c - q), R_c the share n_c e^alpha_c; their sum is <= |S|."""
    weights = [n * math.exp(alpha) for n, alpha in zip(sizes, alphas, strict=True)]
    spare = support - len(sizes)
    total = math.fsum(weights)
    return tuple(min(int(w / total * spare) + 1, n - query) for w, n in zip(weights, sizes, strict=True))


def _level(pool: ClassPool, rng: np.random.Generator) -> ClassPool:
    usable = pool.at_least(2)
    names = sorted(set(usable.superclasses)) if usable.superclasses is not None else []
    levels = [usable.superclass(name) for name in names] if names else [usable]
    levels = [level for level in levels if len(level) >= MIN_WAY]
    if not levels:
        within = "in one superclass " if names else ""
        raise DataError(
            f"{pool.name}: sampler meta_dataset needs {MIN_WAY} classes of two images or more {within}"
            f"and finds {len(usable)} in all; set sampler to fixed with a smaller way"
        )
    return levels[integer(rng, 0, len(levels) - 1)] if names else levels[0]
