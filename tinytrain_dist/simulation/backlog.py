"""What waits to be computed: the grid as it streams by, cut into chunks only when a worker can take one.

A window of pieces is known at a time. The next chunk is cut from the piece whose units cost most, so that long
units are not left for the end, and holds about ``chunk_seconds`` of work, less when little is left: then chunks
shrink towards single units and all workers end together (guided self-scheduling, Polychronopoulos and Kuck, 1987).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tinytrain_dist.simulation.coverage import BLOCK
from tinytrain_dist.simulation.ranges import Ranges, joined, num_in, split
from tinytrain_dist.simulation.rates import Group, Rates
from tinytrain_dist.simulation.request import Chunk

WINDOW_PIECES = 64
SHARE_OF_REST = 8.0
"""A chunk holds at most this part of what is left per worker: 1 / 8."""
SHORTEST_S = 0.1
"""Chunks of less predicted work than this cost more to hand out than to compute."""
MAX_ROWS = 20_000
"""Rows of one chunk at most: what a worker holds in memory."""
MAX_SPAN = 4 * BLOCK
"""Task indices from a chunk's first to its last at most, so that it names few of the shards that lie between."""


@dataclass(frozen=True)
class Piece:
    """Tasks of one group, as the grid yields them: indices of ``group``'s domain."""

    group: Group
    ranges: Ranges


class Backlog:
    """Pieces of the grid that are not handed out yet.

    Parameters
    ----------
    pieces
        Yields the missing work; read as chunks are taken.
    outline
        Number of missing tasks of each group, in all.
    together
        Tasks that a worker computes in the time of few: while there are as many for every worker, no chunk is meant to
        hold less.
    """

    def __init__(
        self,
        pieces: Iterator[Piece],
        outline: Mapping[Group, int],
        *,
        rates: Rates,
        chunk_seconds: float,
        together: int = 1,
    ) -> None:
        self.rates = rates
        self._pieces, self._left = pieces, dict(outline)
        self._chunk_seconds, self._together = chunk_seconds, together
        self._window: dict[Group, deque[Ranges]] = {}
        self._num_in_window = 0
        self._again: deque[Chunk] = deque()

    @property
    def is_empty(self) -> bool:
        """True when everything has been handed out."""
        return not self._again and not any(self._left.values())

    def put_back(self, chunks: list[Chunk]) -> None:
        """Queue chunks that have to be tried again; they go first."""
        self._again.extendleft(reversed(chunks))

    def seconds_left(self) -> float:
        """Return the predicted work that waits, of one worker."""
        again = sum(chunk.num_tasks * self.rates.unit_seconds((chunk.domain, chunk.cells)) for chunk in self._again)
        return again + sum(count * self.rates.unit_seconds(group) for group, count in self._left.items())

    def take(self, num_workers: int) -> Chunk | None:
        """Return the next chunk, ``None`` when there is none."""
        if self._again:
            return self._again.popleft()
        self._refill()
        if not self._window:
            assert self.is_empty, f"the grid ended before its outline: {self._left}"
            return None
        group = max(self._window, key=self.rates.unit_seconds)  # the first of equals: the order of the grid
        return self._cut(group, self._num_wanted(group, num_workers))

    def _num_wanted(self, group: Group, num_workers: int) -> int:
        seconds = min(self._chunk_seconds, self.seconds_left() / (SHARE_OF_REST * max(1, num_workers)))
        seconds = max(seconds, min(SHORTEST_S, self._chunk_seconds))
        num_cells = sum(len(devices) for _, devices in group[1])
        together = min(self._together, math.ceil(self._left[group] / max(1, num_workers)))
        wanted = max(together, round(seconds / self.rates.unit_seconds(group)))
        return max(1, min(wanted, MAX_ROWS // num_cells))

    def _refill(self) -> None:
        while self._num_in_window < WINDOW_PIECES:
            piece = next(self._pieces, None)
            if piece is None:
                return
            self._window.setdefault(piece.group, deque()).append(piece.ranges)
            self._num_in_window += 1

    def _cut(self, group: Group, wanted: int) -> Chunk:
        queue = self._window[group]
        parts: list[Ranges] = []
        missing = wanted
        while missing > 0 and queue:
            if parts and queue[0][0][0] >= parts[0][0][0] + MAX_SPAN:
                break
            first, rest = split(queue.popleft(), missing)
            parts.append(first)
            missing -= num_in(first)
            if rest:
                queue.appendleft(rest)
            else:
                self._num_in_window -= 1
        if not queue:
            del self._window[group]
        self._left[group] -= wanted - missing
        return Chunk(domain=group[0], ranges=joined(*parts), cells=group[1])
