"""What a sampler sees (class sizes, never images), what it answers, and draws that any machine repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassPool:
    """Classes an episode may use: ids, images of each, and superclass of each where the domain has two levels."""

    name: str
    class_ids: tuple[int, ...]
    sizes: tuple[int, ...]
    superclasses: tuple[str, ...] | None = None

    def at_least(self, num_images: int) -> ClassPool:
        """Return the classes with ``num_images`` images or more."""
        return self._subset([i for i, size in enumerate(self.sizes) if size >= num_images])

    def superclass(self, name: str) -> ClassPool:
        """Return the classes of one superclass."""
        assert self.superclasses is not None
        return self._subset([i for i, own in enumerate(self.superclasses) if own == name])

    def _subset(self, keep: list[int]) -> ClassPool:
        supers = self.superclasses
        return ClassPool(
            name=self.name,
            class_ids=tuple(self.class_ids[i] for i in keep),
            sizes=tuple(self.sizes[i] for i in keep),
            superclasses=None if supers is None else tuple(supers[i] for i in keep),
        )

    def __len__(self) -> int:
        return len(self.class_ids)


@dataclass(frozen=True)
class EpisodeShape:
    """The answer: classes in the order of their episode labels, support and query images of each."""

    class_ids: tuple[int, ...]
    shots: tuple[int, ...]
    queries: tuple[int, ...]


# Only PCG64's doubles are used: NumPy keeps that stream stable between releases, but not choice() or shuffle().


def permutation(rng: np.random.Generator, length: int) -> Ints:
    """Return a uniformly drawn order of 0 .. length-1, int64 [length]."""
    return np.argsort(rng.random(length), kind="stable").astype(np.int64)


def integer(rng: np.random.Generator, low: int, high: int) -> int:
    """Return a uniform integer in low .. high, both included."""
    return low + int(rng.random() * (high - low + 1))
