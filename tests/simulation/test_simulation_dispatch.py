"""Dispatch over an executor in memory: nothing is lost, the one bad task is found, the window is bounded."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec
from tinytrain_dist.execution.executor import Failure, FailureKind, Outcome
from tinytrain_dist.foundation.errors import ConfigError, StorageError
from tinytrain_dist.simulation.dispatch import WINDOW_PER_WORKER, Finished, cut, dispatch
from tinytrain_dist.simulation.request import Chunk, ShardRecord
from tinytrain_dist.simulation.settings import DispatchSettings

CELLS = (("none", ("stm32f746",)),)


def spec(index: int, *, domain: str = "signs") -> EpisodeSpec:
    return EpisodeSpec(
        domain=domain, domain_hash="0" * 16, split="test", settings=EpisodeSettings(), seed=0, index=index
    )


def chunk(*indices: int, cells: Any = CELLS) -> Chunk:
    return Chunk(tasks=tuple(spec(i) for i in indices), cells=cells)


def record_of(given: Chunk) -> ShardRecord:
    names = tuple(task.task_id for task in given.tasks)
    return ShardRecord(
        name=given.name, rows=len(names), failed_tasks=0, tasks=names, cells=given.cells, profiles={}, files={}
    )


class FakeExecutor:
    """Answers every chunk by the rule it is given; the newest first, since no order is promised."""

    def __init__(self, *, num_workers: int = 2, bad: dict[int, FailureKind] | None = None) -> None:
        self.num_workers, self.bad = num_workers, bad or {}
        self.queue: deque[tuple[int, Chunk]] = deque()
        self.submitted: list[tuple[Chunk, float]] = []
        self.most_in_flight = 0
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
        for task in given.tasks:
            if kind := self.bad.get(task.index):
                return Outcome(ticket=ticket, failure=Failure(kind, f"task {task.index}"))
        return Outcome(ticket=ticket, value=record_of(given))

    def attempts_at(self, index: int) -> Counter[int]:
        """Return how often the task was tried, by the size of its chunk."""
        return Counter(len(c.tasks) for c, _ in self.submitted if any(t.index == index for t in c.tasks))


def run(executor: FakeExecutor, chunks: list[Chunk], **settings: Any) -> list[Finished]:
    return list(dispatch(executor, chunks, submit=executor.submit, settings=DispatchSettings(**settings)))  # type: ignore[arg-type]


def finished_tasks(results: list[Finished]) -> list[int]:
    return sorted(task.index for result in results for task in result.chunk.tasks)


def test_a_crashing_task_is_found_by_halving_and_its_neighbours_survive() -> None:
    executor = FakeExecutor(bad={5: "crashed"})
    results = run(executor, [chunk(*range(8)), chunk(8, 9)], max_attempts=3)
    (failed,) = [r for r in results if r.record is None]
    assert [t.index for t in failed.chunk.tasks] == [5]
    assert failed.failure == Failure("crashed", "task 5")
    assert finished_tasks(results) == list(range(10))
    assert executor.attempts_at(5) == {8: 1, 4: 1, 2: 1, 1: 3}
    assert executor.attempts_at(0) == {8: 1, 4: 1}
    assert executor.attempts_at(9) == {2: 1}


@pytest.mark.parametrize("max_attempts", [1, 4])
def test_attempts_of_a_single_task_are_capped(max_attempts: int) -> None:
    executor = FakeExecutor(bad={0: "crashed"})
    (failed,) = run(executor, [chunk(0)], max_attempts=max_attempts)
    assert failed.record is None and failed.chunk.attempt == max_attempts
    assert len(executor.submitted) == max_attempts


@pytest.mark.parametrize("kind", ["timeout", "error"])
def test_a_deadline_or_an_exception_is_not_tried_again_alone(kind: FailureKind) -> None:
    executor = FakeExecutor(bad={1: kind})
    results = run(executor, [chunk(0, 1)])
    (failed,) = [r for r in results if r.record is None]
    assert failed.failure is not None and failed.failure.kind == kind
    assert executor.attempts_at(1) == {2: 1, 1: 1}
    assert finished_tasks(results) == [0, 1]


def test_the_deadline_grows_with_the_tasks_of_a_chunk() -> None:
    executor = FakeExecutor()
    run(executor, [chunk(0, 1, 2), chunk(3)], deadline_s=7.0)
    assert [deadline for _, deadline in executor.submitted] == [21.0, 7.0]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_window_is_bounded(num_workers: int) -> None:
    executor = FakeExecutor(num_workers=num_workers)
    results = run(executor, [chunk(i) for i in range(40)])
    assert finished_tasks(results) == list(range(40))
    assert executor.most_in_flight == WINDOW_PER_WORKER * num_workers


def test_without_a_cpu_the_executor_is_still_asked() -> None:
    executor = FakeExecutor(num_workers=0)
    assert finished_tasks(run(executor, [chunk(0), chunk(1)])) == [0, 1]
    assert executor.most_in_flight == 1


def test_a_worker_that_cannot_write_ends_the_run() -> None:
    class Full(FakeExecutor):
        def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
            return Outcome(ticket=self.queue.popleft()[0], value=StorageError("disk full"))

    with pytest.raises(StorageError, match="disk full"):
        run(Full(), [chunk(0)])


@given(bad=st.sets(st.integers(0, 30)), per_chunk=st.integers(1, 31), workers=st.integers(1, 5))
def test_every_task_ends_exactly_once_whatever_crashes(bad: set[int], per_chunk: int, workers: int) -> None:
    chunks = [chunk(*range(i, min(i + per_chunk, 31))) for i in range(0, 31, per_chunk)]
    results = run(FakeExecutor(num_workers=workers, bad=dict.fromkeys(bad, "crashed")), chunks)
    assert finished_tasks(results) == list(range(31))
    assert {r.chunk.tasks[0].index for r in results if r.record is None} == bad


def test_cut_joins_equal_cells_only_and_puts_the_longest_first() -> None:
    slow, quick = (("full_train", ("jetson_nano",)),), CELLS
    seconds = {slow: 2.0, quick: 0.5}
    tasks = [chunk(i, cells=slow if i % 4 == 0 else quick) for i in range(16)]
    joined = cut(tasks, seconds_of=lambda c: seconds[c.cells], chunk_seconds=4.0)
    lengths = [seconds[c.cells] * len(c.tasks) for c in joined]
    assert lengths == sorted(lengths, reverse=True)
    assert all(length <= 4.0 for length in lengths)
    assert sorted(t.index for c in joined for t in c.tasks) == list(range(16))
    assert all((t.index % 4 == 0) == (c.cells == slow) for c in joined for t in c.tasks)


def test_a_chunk_is_named_by_what_is_computed() -> None:
    assert chunk(1, 2).name == chunk(1, 2).name
    assert len({chunk(1, 2).name, chunk(2, 1).name, chunk(1).name, chunk(1, 2, cells=()).name}) == 4
    first, second = chunk(1, 2, 3).halves()
    assert [t.index for t in (*first.tasks, *second.tasks)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("key", "value"), [("chunk_seconds", 0), ("max_attempts", 0), ("deadline_s", -1), ("max_failed_share", 1.1)]
)
def test_settings_name_the_key(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"dispatch\.{key}"):
        DispatchSettings(**{key: value})  # type: ignore[arg-type]
