"""Ranges, bits, and chunks cut from a grid that streams: nothing is listed, nothing is left out."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.simulation import backlog
from tinytrain_dist.simulation.backlog import MAX_ROWS, Backlog
from tinytrain_dist.simulation.coverage import BLOCK, Coverage
from tinytrain_dist.simulation.grid import Grid
from tinytrain_dist.simulation.ranges import indices_of, joined, num_in, ranges_of, split
from tinytrain_dist.simulation.rates import Group, Rates
from tinytrain_dist.simulation.request import Cells, Chunk

CELLS: Cells = (("none", ("a", "b")), ("tinytrain", ("a", "b")))
Tasks = st.sets(st.integers(0, 60))


def ranges(tasks: set[int]) -> tuple[tuple[int, int], ...]:
    return ranges_of(np.array(sorted(tasks), dtype=np.int64))


@given(tasks=Tasks, count=st.integers(-1, 70))
def test_ranges_hold_what_they_were_made_of(tasks: set[int], count: int) -> None:
    found = ranges(tasks)
    assert list(indices_of(found)) == sorted(tasks) and num_in(found) == len(tasks)
    assert all(a[1] < b[0] for a, b in pairwise(found))
    first, rest = split(found, count)
    assert list(indices_of(first)) == sorted(tasks)[: max(count, 0)] and joined(first, rest) == found


@given(steps=st.lists(st.tuples(Tasks, st.sampled_from(["none", "tinytrain"]), st.sampled_from("ab"), st.booleans())))
def test_coverage_is_a_set_of_cells(steps: list[tuple[set[int], str, str, bool]]) -> None:
    coverage, model = Coverage(), set()
    for tasks, method, device, done in steps:
        cells = ((method, (device,)),)
        touched = {(task, method, device) for task in tasks}
        assert coverage.touches("signs", ranges(tasks), cells) == bool(model & touched)
        coverage.mark("signs", ranges(tasks), cells, done=done)
        model = model | touched if done else model - touched
    assert coverage.count() == len(model)
    lacking = Counter(
        (task, method, device)
        for found, cells in coverage.missing("signs", 0, 61, CELLS)
        for task in indices_of(found)
        for method, devices in cells
        for device in devices
    )
    everything = {(t, m, d) for t in range(61) for m, devices in CELLS for d in devices}
    assert lacking == Counter(everything - model)
    coverage.clear_device("a")
    assert coverage.count() == len({cell for cell in model if cell[2] != "a"})


def chunks_of(
    grid: Grid, coverage: Coverage, *, seconds: float, workers: int, rates: Rates | None = None
) -> list[Chunk]:
    waiting = Backlog(
        grid.pieces(coverage), grid.outline(coverage), rates=rates or Rates(lambda group: 0.1), chunk_seconds=seconds
    )
    found = []
    while (chunk := waiting.take(workers)) is not None:
        found.append(chunk)
    assert waiting.is_empty
    return found


@given(done=Tasks, seconds=st.floats(0.001, 100), workers=st.integers(0, 9))
def test_every_missing_cell_is_in_exactly_one_chunk(done: set[int], seconds: float, workers: int) -> None:
    grid, coverage = Grid(domains=("x", "y"), num_tasks=40, cells=CELLS), Coverage()
    coverage.mark("x", ranges(done), (("none", ("b",)),))
    found = Counter(
        (chunk.domain, task, method, device)
        for chunk in chunks_of(grid, coverage, seconds=seconds, workers=workers)
        for task in chunk.indices()
        for method, devices in chunk.cells
        for device in devices
    )
    wanted = {(n, t, m, d) for n in "xy" for t in range(40) for m, devices in CELLS for d in devices}
    assert found == Counter(wanted - {("x", task, "none", "b") for task in done})


def test_the_grid_is_read_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Group] = []
    grid = Grid(domains=("x", "y"), num_tasks=200 * BLOCK, cells=CELLS)

    def watched(coverage: Coverage):  # type: ignore[no-untyped-def]
        for piece in grid.pieces(coverage):
            read.append(piece.group)
            yield piece

    left = {("x", CELLS): 200 * BLOCK, ("y", CELLS): 200 * BLOCK}
    waiting = Backlog(watched(Coverage()), left, rates=Rates(lambda group: 0.1), chunk_seconds=3.0)
    assert waiting.take(2) is not None
    assert len(read) <= backlog.WINDOW_PIECES


def test_chunks_shrink_towards_the_end_and_the_costliest_units_go_first() -> None:
    seconds = {"x": 0.4, "y": 2.0}
    rates = Rates(lambda group: seconds[group[0]])
    grid = Grid(domains=("x", "y"), num_tasks=200, cells=CELLS)
    found = chunks_of(grid, Coverage(), seconds=4.0, workers=4, rates=rates)
    assert [chunk.domain for chunk in found] == sorted((chunk.domain for chunk in found), reverse=True)
    lengths = [chunk.num_tasks * seconds[chunk.domain] for chunk in found]
    assert max(lengths) == pytest.approx(4.0) and lengths[-1] == pytest.approx(0.4)
    quick = [chunk.num_tasks for chunk in found if chunk.domain == "x"]
    assert quick == sorted(quick, reverse=True)


def test_what_units_really_take_decides_the_size_of_chunks() -> None:
    rates = Rates(lambda group: 1.0)
    for _ in range(5):
        rates.observe(("x", CELLS), seconds=0.5, num_tasks=10)
    rates.observe(("x", CELLS), seconds=900.0, num_tasks=1)  # a straggler moves a median little
    assert rates.unit_seconds(("x", CELLS)) == pytest.approx(0.05)
    assert rates.unit_seconds(("y", CELLS)) == pytest.approx(0.05), "an unseen group is corrected by the others"
    first, *_ = chunks_of(
        Grid(domains=("x",), num_tasks=100_000, cells=CELLS), Coverage(), seconds=3.0, workers=2, rates=rates
    )
    assert first.num_tasks == 60


def test_a_chunk_of_quick_units_holds_a_bounded_number_of_rows() -> None:
    grid = Grid(domains=("x",), num_tasks=100_000, cells=CELLS)
    found = chunks_of(grid, Coverage(), seconds=3.0, workers=2, rates=Rates(lambda group: 1e-7))
    assert max(chunk.num_rows for chunk in found) == MAX_ROWS
