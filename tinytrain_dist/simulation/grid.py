"""The grid of a run: every task of every domain, on every method and device; yielded, never listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tinytrain_dist.simulation.backlog import Piece
from tinytrain_dist.simulation.coverage import BLOCK, Coverage
from tinytrain_dist.simulation.ranges import num_in
from tinytrain_dist.simulation.rates import Group
from tinytrain_dist.simulation.request import Cells


@dataclass(frozen=True, kw_only=True)
class Grid:
    """``num_tasks`` units of each domain. A unit is (domain, index): the run's identity makes it a task."""

    domains: tuple[str, ...]
    num_tasks: int
    cells: Cells

    @property
    def num_units(self) -> int:
        """Number of units."""
        return len(self.domains) * self.num_tasks

    def pieces(self, coverage: Coverage) -> Iterator[Piece]:
        """Yield the units with missing cells, the domains in turn; nothing is held that was yielded."""
        for start in range(0, self.num_tasks, BLOCK):
            stop = min(start + BLOCK, self.num_tasks)
            for domain in self.domains:
                for ranges, cells in coverage.missing(domain, start, stop, self.cells):
                    yield Piece((domain, cells), ranges)

    def outline(self, coverage: Coverage) -> dict[Group, int]:
        """Return the number of units with missing cells, by group."""
        counted: Counter[Group] = Counter()
        for piece in self.pieces(coverage):
            counted[piece.group] += num_in(piece.ranges)
        return dict(counted)
