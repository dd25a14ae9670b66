"""Dispatch over an executor in memory: nothing is lost, the one bad task is found, the window is bounded."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.execution.executor import Failure, FailureKind, Outcome
from tinytrain_dist.foundation.errors import ClusterError, ConfigError, StorageError
from tinytrain_dist.simulation.backlog import MAX_SPAN, Backlog, Piece
from tinytrain_dist.simulation.dispatch import MAX_LOSSES, ChunkReport, Dispatcher, Finished, Tick
from tinytrain_dist.simulation.rates import Rates
from tinytrain_dist.simulation.request import Cells, Chunk, ShardRecord
from tinytrain_dist.simulation.settings import DispatchSettings

CELLS: Cells = (("none", ("stm32f746",)),)


def chunk(start: int, stop: int, cells: Cells = CELLS) -> Chunk:
    return Chunk(domain="signs", ranges=((start, stop),), cells=cells)


def report_of(given: Chunk) -> ChunkReport:
    record = ShardRecord(
        name=given.name, domain=given.domain, ranges=given.ranges, cells=given.cells, rows=given.num_rows,
        failed_tasks=0, profiles={}, files={}, digest="0",
    )  # fmt: skip
    return ChunkReport(record, seconds=given.num_tasks)


class FakeExecutor:
    """Answers every chunk by the rule it is given; the newest first, since no order is promised."""

    def __init__(self, *, num_workers: int = 2, bad: dict[int, FailureKind] | None = None, ticks: bool = False) -> None:
        self.num_workers, self.bad, self.ticks = num_workers, bad or {}, ticks
        self.queue: deque[tuple[int, Chunk]] = deque()
        self.submitted: list[tuple[Chunk, float]] = []
        self.most_in_flight = 0
        self.cancelled: list[int] = []
        self.silent_polls = 1

    def submit(self, given: Chunk, *, deadline_s: float) -> int:
        self.submitted.append((given, deadline_s))
        self.queue.append((len(self.submitted), given))
        self.most_in_flight = max(self.most_in_flight, len(self.queue))
        return len(self.submitted)

    def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
        self.silent_polls = 1 - self.silent_polls
        if self.silent_polls or not self.queue:
            return None  # nothing finished yet: dispatch must ask again
        ticket, given = self.queue.pop()
        for place, index in enumerate(given.indices()):
            if kind := self.bad.get(index):
                every = given.attempt > 1  # a first attempt speaks up now and then: here at every fourth task
                tick = Tick(place if every else place - place % 4, every=every) if self.ticks else None
                return Outcome(ticket=ticket, failure=Failure(kind, f"task {index}"), progress=tick)
        return Outcome(ticket=ticket, value=report_of(given))

    def cancel(self, ticket: int) -> None:
        self.cancelled.append(ticket)

    def attempts_at(self, index: int) -> Counter[int]:
        """Return how often the task was tried, by the size of its chunk."""
        return Counter(c.num_tasks for c, _ in self.submitted if index in c.indices())


def backlog_of(num_tasks: int, *, per_chunk: int) -> Backlog:
    """Return tasks of a second each."""
    group, pieces = ("signs", CELLS), [((0, num_tasks),)] if num_tasks else []
    waiting = Backlog(
        (Piece(("signs", CELLS), ranges) for ranges in pieces), {group: num_tasks},
        rates=Rates(lambda group: 1.0), chunk_seconds=per_chunk,
    )  # fmt: skip
    waiting.seconds_left = lambda: 1e9  # type: ignore[method-assign]  # of shrinking chunks there are other tests
    return waiting


def run(executor: FakeExecutor, num_tasks: int, *, per_chunk: int = 8, **settings: Any) -> list[Finished]:
    dispatcher = Dispatcher(
        executor, backlog_of(num_tasks, per_chunk=per_chunk), submit=executor.submit,  # type: ignore[arg-type]
        settings=DispatchSettings(**settings),
    )  # fmt: skip
    return [finished for finished in dispatcher.run() if finished is not None]


def finished_tasks(results: list[Finished]) -> list[int]:
    return sorted(index for result in results for index in result.chunk.indices())


def test_a_crashing_task_is_found_by_halving_and_its_neighbours_survive() -> None:
    executor = FakeExecutor(bad={5: "crashed"})
    results = run(executor, 10, max_attempts=3)
    (failed,) = [r for r in results if r.record is None]
    assert list(failed.chunk.indices()) == [5]
    assert failed.failure == Failure("crashed", "task 5")
    assert finished_tasks(results) == list(range(10))
    assert executor.attempts_at(5) == {8: 1, 4: 1, 2: 1, 1: 3}
    assert executor.attempts_at(0) == {8: 1, 4: 1}
    assert executor.attempts_at(9) == {2: 1}


@pytest.mark.parametrize("max_attempts", [1, 4])
def test_attempts_of_a_single_task_are_capped(max_attempts: int) -> None:
    executor = FakeExecutor(bad={0: "crashed"})
    (failed,) = run(executor, 1, max_attempts=max_attempts)
    assert failed.record is None and failed.chunk.attempt == max_attempts
    assert len(executor.submitted) == max_attempts


@pytest.mark.parametrize("kind", ["timeout", "error"])
def test_a_deadline_or_an_exception_is_not_tried_again_alone(kind: FailureKind) -> None:
    executor = FakeExecutor(bad={1: kind})
    results = run(executor, 2)
    (failed,) = [r for r in results if r.record is None]
    assert failed.failure is not None and failed.failure.kind == kind
    assert executor.attempts_at(1) == {2: 1, 1: 1}
    assert finished_tasks(results) == [0, 1]


def test_a_hanging_task_costs_two_deadlines_whatever_the_size_of_its_chunk() -> None:
    executor = FakeExecutor(bad={50: "timeout"}, ticks=True)
    results = run(executor, 64, per_chunk=64, deadline_s=7.0)
    (failed,) = [r for r in results if r.record is None]
    assert list(failed.chunk.indices()) == [50] and failed.failure == Failure("timeout", "task 50")
    assert finished_tasks(results) == list(range(64))
    assert sum(executor.attempts_at(50).values()) == 2
    assert {deadline for _, deadline in executor.submitted} == {7.0}


def test_a_chunk_spans_no_more_than_a_few_blocks_however_scattered_its_tasks() -> None:
    group, starts = ("signs", CELLS), [0, 50, MAX_SPAN - 1, MAX_SPAN, 10 * MAX_SPAN]
    waiting = Backlog(
        (Piece(group, ((start, start + 1),)) for start in starts), {group: len(starts)},
        rates=Rates(lambda group: 1.0), chunk_seconds=1e9,
    )  # fmt: skip
    waiting.seconds_left = lambda: 1e12  # type: ignore[method-assign]
    chunks = []
    while (taken := waiting.take(1)) is not None:
        chunks.append(list(taken.indices()))
    assert chunks == [[0, 50, MAX_SPAN - 1], [MAX_SPAN], [10 * MAX_SPAN]]


@pytest.mark.parametrize(("num_workers", "sizes"), [(1, [8, 8, 4]), (4, [5, 4, 3, 2, 2, 1, 1, 1, 1]), (20, [1] * 20)])
def test_a_chunk_holds_what_is_computed_together_while_every_worker_has_some(
    num_workers: int, sizes: list[int]
) -> None:
    group = ("signs", CELLS)
    waiting = Backlog(
        iter([Piece(group, ((0, 20),))]), {group: 20}, rates=Rates(lambda group: 100.0), chunk_seconds=1.0, together=8
    )  # fmt: skip
    found = []
    while (taken := waiting.take(num_workers)) is not None:
        found.append(taken.num_tasks)
    assert found == sizes


@pytest.mark.parametrize(("num_workers", "window"), [(1, 2.0), (3, 2.0), (4, 2.5)])
def test_the_window_is_bounded(num_workers: int, window: float) -> None:
    executor = FakeExecutor(num_workers=num_workers)
    results = run(executor, 40, per_chunk=1, window_per_worker=window)
    assert finished_tasks(results) == list(range(40))
    assert executor.most_in_flight == round(window * num_workers)


def test_the_window_follows_the_cluster() -> None:
    class Growing(FakeExecutor):
        def submit(self, given: Chunk, *, deadline_s: float) -> int:
            self.num_workers = 1 if len(self.submitted) < 20 else 8
            return super().submit(given, deadline_s=deadline_s)

    executor = Growing(num_workers=1)
    assert finished_tasks(run(executor, 60, per_chunk=1, window_per_worker=2.0)) == list(range(60))
    assert executor.most_in_flight == 16


def test_without_a_worker_the_executor_is_still_asked() -> None:
    executor = FakeExecutor(num_workers=0)
    assert finished_tasks(run(executor, 2, per_chunk=1)) == [0, 1]
    assert executor.most_in_flight == 1


def test_a_worker_that_cannot_write_ends_the_run() -> None:
    class Full(FakeExecutor):
        def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
            return Outcome(ticket=self.queue.popleft()[0], value=StorageError("disk full"))

    full = Full()
    with pytest.raises(StorageError, match="disk full"):
        run(full, 1)
    assert len(full.submitted) == full.num_workers, "tried elsewhere, and not without end"


def test_a_machine_that_cannot_work_leaves_its_chunks_to_the_others() -> None:
    class OneBad(FakeExecutor):
        def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
            if len(self.submitted) % 3 == 0 and self.queue:
                return Outcome(ticket=self.queue.pop()[0], value=StorageError("not mounted"))
            return super().next_outcome(timeout_s=timeout_s)

    executor = OneBad(num_workers=3)
    results = run(executor, 30, per_chunk=2)
    assert finished_tasks(results) == list(range(30)) and all(r.record is not None for r in results)


def test_a_lost_machine_is_nobodys_fault() -> None:
    """Neither cut nor counted as an attempt that killed its worker."""

    class Losing(FakeExecutor):
        left = MAX_LOSSES - 1

        def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
            if not self.queue or not self.left:
                return super().next_outcome(timeout_s=timeout_s)
            self.left -= 1
            return Outcome(ticket=self.queue.pop()[0], failure=Failure("lost", "node gone"))

    executor = Losing()
    (finished,) = run(executor, 8, per_chunk=8, max_attempts=1)
    assert finished.record is not None and finished.chunk.attempt == MAX_LOSSES
    assert {given.num_tasks for given, _ in executor.submitted} == {8}
    executor = Losing()
    executor.left = MAX_LOSSES
    with pytest.raises(ClusterError, match="8 times the machine of one chunk failed, last: node gone"):
        run(executor, 8, per_chunk=8)


@given(
    bad=st.dictionaries(st.integers(0, 30), st.sampled_from(["crashed", "timeout", "error"])),
    per_chunk=st.integers(1, 31),
    workers=st.integers(1, 5),
    ticks=st.booleans(),
)
def test_every_task_ends_exactly_once_whatever_fails(
    bad: dict[int, FailureKind], per_chunk: int, workers: int, ticks: bool
) -> None:
    results = run(FakeExecutor(num_workers=workers, bad=bad, ticks=ticks), 31, per_chunk=per_chunk)
    assert finished_tasks(results) == list(range(31))
    assert {r.chunk.ranges[0][0]: r.failure.kind for r in results if r.failure} == bad
    assert all(r.chunk.num_tasks == 1 for r in results if r.failure)


def test_an_overdue_chunk_is_doubled_by_an_idle_worker_and_the_first_copy_counts() -> None:
    class Dragging(FakeExecutor):
        """The first copy of task 3 takes a minute, everything else a second."""

        now = 0.0

        def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
            self.now += 1.0
            ready = [item for item in self.queue if item[0] != 4 or self.now > 60]
            if not ready:
                return None
            self.queue.remove(ready[0])
            return Outcome(ticket=ready[0][0], value=report_of(ready[0][1]))

    executor = Dragging(num_workers=2)
    dispatcher = Dispatcher(
        executor, backlog_of(8, per_chunk=1), submit=executor.submit,  # type: ignore[arg-type]
        settings=DispatchSettings(), clock=lambda: executor.now,
    )  # fmt: skip
    results = [finished for finished in dispatcher.run() if finished is not None]
    assert finished_tasks(results) == list(range(8)) and dispatcher.retried == 1
    assert executor.cancelled == [4], "the slower copy is ended"
    assert executor.now < 20 and executor.attempts_at(3) == {1: 2}


def test_an_overdue_task_whose_copies_die_in_turn_is_given_up() -> None:
    class Deadly(FakeExecutor):
        """Everything takes five seconds, and task 3 kills its worker at the end of them."""

        now = 0.0

        def submit(self, given: Chunk, *, deadline_s: float) -> int:
            ticket = super().submit(given, deadline_s=deadline_s)
            self.ends[ticket] = self.now + 5.0
            return ticket

        def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
            self.now += 1.0
            assert self.now < 200, "never given up"
            ready = [item for item in self.queue if self.ends[item[0]] <= self.now]
            if not ready:
                return None
            self.queue.remove(ready[0])
            ticket, given = ready[0]
            if 3 in given.indices():
                return Outcome(ticket=ticket, failure=Failure("crashed", "task 3"))
            return Outcome(ticket=ticket, value=report_of(given))

    executor = Deadly(num_workers=2)
    executor.ends = {}  # type: ignore[attr-defined]
    dispatcher = Dispatcher(
        executor, backlog_of(4, per_chunk=1), submit=executor.submit,  # type: ignore[arg-type]
        settings=DispatchSettings(max_attempts=3), clock=lambda: executor.now,
    )  # fmt: skip
    results = [finished for finished in dispatcher.run() if finished is not None]
    (failed,) = [result for result in results if result.record is None]
    assert list(failed.chunk.indices()) == [3] and failed.failure == Failure("crashed", "task 3")
    assert finished_tasks(results) == list(range(4))


def test_a_chunk_is_named_by_what_is_computed() -> None:
    assert chunk(1, 3).name == chunk(1, 3).name
    assert len({chunk(1, 3).name, chunk(1, 2).name, chunk(2, 3).name, chunk(1, 3, cells=()).name}) == 4
    first, second = chunk(1, 4).halves()
    assert [*first.indices(), *second.indices()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chunk_seconds", 0),
        ("max_attempts", 0),
        ("deadline_s", -1),
        ("max_failed_share", 1.1),
        ("window_per_worker", 0.5),
        ("deadline_s", float("nan")),
    ],
)
def test_settings_name_the_key(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"dispatch\.{key}"):
        DispatchSettings(**{key: value})  # type: ignore[arg-type]
