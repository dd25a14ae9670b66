"""``PrefixCache``: what the frozen layers made of a task's images, shared by every plan, method and device.

A plan that starts later continues from where an earlier one left off. Activations stay within a byte budget;
what does not fit is computed again, with the same result. On a GPU the images themselves are kept as well, as long as
there is room: they are made on the CPU and have to be copied.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import LayerState

BUDGET_BYTES = 384 * 2**20
IMAGES_PER_PASS = 128
"""Images that go through the frozen layers at once: bounds memory on the largest tasks."""


class PrefixCache:
    """States of named sets of images at the cuts that were asked for."""

    def __init__(self, network: FoldedNetwork, *, budget_bytes: int = BUDGET_BYTES) -> None:
        self._network, self._left_bytes = network, budget_bytes
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
            nearest = max((c for c in known if c < cut), default=None)
            start = LayerState(images()) if nearest is None else known[nearest]
            state = self._run(start, nearest or 0, cut)
            if not self._keep(known, cut, state, limit_bytes):
                return state
        return known[cut]

    def _keep(self, known: dict[int, LayerState], cut: int, state: LayerState, limit_bytes: int | None) -> bool:
        size = sum(t.numel() * t.element_size() for t in state if t is not None)
        is_not_worth_it = cut == 0 or (limit_bytes is not None and size > limit_bytes)
        if size > self._left_bytes or (is_not_worth_it and self._network.device.type == "cpu"):
            return False
        self._left_bytes -= size
        known[cut] = state
        return True

    def _run(self, state: LayerState, start: int, stop: int) -> LayerState:
        parts = [self._network.run(part, start=start, stop=stop) for part in split(state, IMAGES_PER_PASS)]
        return parts[0] if len(parts) == 1 else concatenate(parts)


def split(state: LayerState, images: int) -> list[LayerState]:
    """Return the state in parts of at most so many images."""
    xs = torch.split(state.x, images)
    if state.residual is None:
        return [LayerState(x) for x in xs]
    return [LayerState(x, r) for x, r in zip(xs, torch.split(state.residual, images), strict=True)]


def concatenate(parts: list[LayerState]) -> LayerState:
    """Return all parts as one batch."""
    residuals = [part.residual for part in parts if part.residual is not None]
    return LayerState(torch.cat([part.x for part in parts]), torch.cat(residuals) if residuals else None)
