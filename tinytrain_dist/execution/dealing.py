"""``Dealing``: which chunk of a round each worker gets, and which one it is told to prepare meanwhile.

A worker that is free gets the chunk it was told of, where that still waits, else one that nobody was told of, else any:
none waits for another. No two workers are told of the same chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

Chunk = tuple[int, ...]
"""Numbers of the slots of one call."""


class Dealing:
    """Deals one round after the other to workers known by numbers."""

    def __init__(self) -> None:
        self._told: dict[int, Chunk] = {}
        self._told_of_next: dict[int, Chunk] = {}
        self._waiting: list[Chunk] = []
        self._later: list[Chunk] = []

    def begin(self, chunks: Sequence[Chunk], *, later: Sequence[Chunk]) -> None:
        """Begin a round of ``chunks``, after which a round of ``later`` will most likely come."""
        self._waiting, self._later = list(chunks), list(later)
        self._told, self._told_of_next = self._told_of_next, {}

    def put_back(self, chunk: Chunk) -> None:
        """Let a chunk wait again that was lost with its worker."""
        self._waiting.append(chunk)

    def deal(self, free: Sequence[int]) -> dict[int, Chunk]:
        """Return the chunk of each free worker that gets one."""
        dealt: dict[int, Chunk] = {}
        for worker in sorted(free, key=lambda one: self._told.get(one) not in self._waiting):
            if not self._waiting:
                break
            dealt[worker] = self._choice(worker)
            self._waiting.remove(dealt[worker])
        return dealt

    def tell(self, worker: int) -> tuple[Chunk, bool] | None:
        """Return the chunk a worker is to prepare, and whether it is of the next round; ``None``: no chunk is left."""
        self._told.pop(worker, None)
        self._told_of_next.pop(worker, None)
        taken, taken_of_next = set(self._told.values()), set(self._told_of_next.values())
        for chunk in self._waiting:
            if chunk not in taken:
                self._told[worker] = chunk
                return chunk, False
        for chunk in self._later:
            if chunk not in taken_of_next:
                self._told_of_next[worker] = chunk
                return chunk, True
        return None

    def _choice(self, worker: int) -> Chunk:
        own = self._told.get(worker)
        if own in self._waiting:
            return own
        others = {chunk for other, chunk in self._told.items() if other != worker}
        return next((chunk for chunk in self._waiting if chunk not in others), self._waiting[0])
