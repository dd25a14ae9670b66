"""``PrefixCache``: what the frozen layers made of a task's images, shared by every plan, method and device.

A plan that starts later continues from where an earlier one left off. Activations stay within a byte budget;
what does not fit is computed again, with the same result. On a GPU the images themselves are kept as well, as long as
there is room: they are made on the CPU and have to be copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import LayerState

BUDGET_BYTES = 384 * 2**20
IMAGES_PER_PASS = 128
"""Images that go through the frozen layers at once: bounds memory on the largest tasks."""


class PrefixCache:
    """States of named sets of images at the cuts that were asked for; ``network`` makes them."""

    def __init__(self, network: FoldedNetwork, *, budget_bytes: int = BUDGET_BYTES) -> None:
        self.network, self._left_bytes = network, budget_bytes
        self._states: dict[str, dict[int, LayerState]] = {}

    @torch.no_grad()
    def state(self, name: str, cut: int, *, images: Callable[[], Tensor], limit_bytes: int | None = None) -> LayerState:
        """Return what layer ``cut`` receives for the images called ``name``.

        Parameters
        ----------
        images
            Makes the network input ``[N, 3, R, R]`` where nothing is cached yet; must be a function of ``name``.
        limit_bytes
            On the CPU a larger state is not kept: the maps of early layers would use up the budget.
        """
        known = self._states.setdefault(name, {})
        if cut not in known:
            nearest = self.nearest(name, cut)
            start = LayerState(images()) if nearest is None else known[nearest]
            state = self._run(start, nearest or 0, cut)
            if not self.keep(name, cut, state, limit_bytes=limit_bytes):
                return state
        return known[cut]

    def knows(self, name: str, cut: int) -> bool:
        """Return whether the state is kept."""
        return cut in self._states.get(name, {})

    def nearest(self, name: str, cut: int) -> int | None:
        """Return the latest cut below ``cut`` whose state is kept."""
        return max((c for c in self._states.get(name, {}) if c < cut), default=None)

    def keep(self, name: str, cut: int, state: LayerState, *, limit_bytes: int | None = None) -> bool:
        """Keep a state where there is room for it and it is worth it; return whether it is kept."""
        size = sum(t.numel() * t.element_size() for t in state if t is not None)
        is_not_worth_it = cut == 0 or (limit_bytes is not None and size > limit_bytes)
        if size > self._left_bytes or (is_not_worth_it and self.network.device.type == "cpu"):
            return False
        self._left_bytes -= size
        self._states.setdefault(name, {})[cut] = state
        return True

    def _run(self, state: LayerState, start: int, stop: int) -> LayerState:
        parts = [self.network.run(part, start=start, stop=stop) for part in split(state, IMAGES_PER_PASS)]
        return parts[0] if len(parts) == 1 else concatenate(parts)


@dataclass(frozen=True)
class ImageSet:
    """Images of one cache, as ``PrefixCache.state`` takes them."""

    cache: PrefixCache
    name: str
    images: Callable[[], Tensor]


@torch.no_grad()
def fill(sets: Sequence[ImageSet], cut: int) -> None:
    """Run the frozen layers below ``cut`` for sets of several caches of one network together; each keeps its own.

    A GPU takes many images in the time of few. Sets whose state is known are left out, the others continue from the
    latest cut they are known at.
    """
    waiting: dict[int, list[ImageSet]] = {}
    for one in sets:
        if cut > 0 and not one.cache.knows(one.name, cut):
            waiting.setdefault(one.cache.nearest(one.name, cut) or 0, []).append(one)
    full: set[int] = set()
    for start, members in waiting.items():
        for group, states in _in_passes(members, start, full):
            found = group[0].cache.network.run(concatenate(states), start=start, stop=cut)
            for one, state in zip(group, split(found, [len(state.x) for state in states]), strict=True):
                if not one.cache.keep(one.name, cut, state):
                    full.add(id(one.cache))


def _in_passes(
    sets: Sequence[ImageSet], start: int, full: set[int]
) -> Iterator[tuple[list[ImageSet], list[LayerState]]]:
    """Yield sets and their states at ``start``, so many images as go through at once; a larger set is alone.

    Sets of a cache that is ``full`` are left out: their states would be made in vain.
    """
    group: list[ImageSet] = []
    states: list[LayerState] = []
    for one in sets:
        if id(one.cache) in full:
            continue
        state = one.cache.state(one.name, start, images=one.images)
        if group and sum(len(earlier.x) for earlier in states) + len(state.x) > IMAGES_PER_PASS:
            yield group, states
            group, states = [], []
        group.append(one)
        states.append(state)
    if group:
        yield group, states


def split(state: LayerState, images: int | list[int]) -> list[LayerState]:
    """Return the state in parts of at most so many images, or of the sizes that are given."""
    xs = torch.split(state.x, images)
    if state.residual is None:
        return [LayerState(x) for x in xs]
    return [LayerState(x, r) for x, r in zip(xs, torch.split(state.residual, images), strict=True)]


def concatenate(parts: list[LayerState]) -> LayerState:
    """Return all parts as one batch."""
    residuals = [part.residual for part in parts if part.residual is not None]
    return LayerState(torch.cat([part.x for part in parts]), torch.cat(residuals) if residuals else None)
