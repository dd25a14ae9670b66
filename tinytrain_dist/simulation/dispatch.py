"""Dispatch: a window of chunks in flight; what dies is cut and tried again, what drags is tried twice, never lost.

Knows neither Ray nor the clock: both come in, so that a simulated cluster drives this very code.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from tinytrain_dist.execution.executor import Executor, Failure, Outcome, describe
from tinytrain_dist.foundation.errors import ClusterError, TinyTrainError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.simulation.backlog import Backlog
from tinytrain_dist.simulation.request import Chunk, ShardRecord
from tinytrain_dist.simulation.run_log import Say, unsaid
from tinytrain_dist.simulation.settings import DispatchSettings

POLL_S = 1.0
MAX_LOSSES = 8
OVERDUE_FACTOR, OVERDUE_S, MAX_COPIES = 1.5, 1.0, 3
"""An idle worker takes a copy of a chunk after 1.5 times its predicted time, and not before a second."""
_log = logger(__name__)


class Tick(NamedTuple):
    """A worker's sign of life: it starts on the task at ``place`` of its chunk; ``every``: it says so of each."""

    place: int
    every: bool


@dataclass(frozen=True)
class ChunkReport:
    """What a worker sends back: the shard's record, the seconds its tasks took, and what computed them.

    Attributes
    ----------
    tuned_alone
        Why tasks that should have been tuned together were not; empty: they were.
    """

    record: ShardRecord
    seconds: float
    computed_on: str = ""
    tuned_alone: str = ""


@dataclass(frozen=True)
class Finished:
    """A chunk's shard and the seconds its tasks took, or the last failure of a chunk of one task."""

    chunk: Chunk
    record: ShardRecord | None
    failure: Failure | None
    computed_on: str = ""
    seconds: float = 0.0
    tuned_alone: str = ""


class Submit(Protocol):
    """Submits one chunk to an executor and returns its ticket."""

    def __call__(self, chunk: Chunk, *, deadline_s: float) -> int: ...


@dataclass
class _Flight:
    chunk: Chunk
    since: float
    overdue_s: float
    tickets: set[int] = field(default_factory=set)
    copies: int = 0


class Dispatcher:
    """Runs everything in a backlog on an executor.

    A chunk whose machine failed is tried again as it is: nobody is to blame. A chunk that fails otherwise is cut down
    to the one task to blame: by halves, or at the task its worker was last heard of. A single task gets
    ``max_attempts`` attempts of its own where its worker dies, and one where it outlasts its deadline, which counts
    from the last sign of life: a chunk's length does not lengthen it.

    Attributes
    ----------
    retried
        Chunks tried again so far, second copies of overdue ones included.
    """

    def __init__(
        self,
        executor: Executor,
        backlog: Backlog,
        *,
        submit: Submit,
        settings: DispatchSettings,
        clock: Callable[[], float] = time.monotonic,
        say: Say = unsaid,
    ) -> None:
        self._executor, self._backlog, self._submit_call = executor, backlog, submit
        self._settings, self._clock, self._say = settings, clock, say
        self._flights: dict[int, _Flight] = {}  # by ticket; an overdue chunk has two
        self._deaths: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._troubles = 0  # machines that could not work, since the last one that could
        self.retried = 0

    @property
    def num_in_flight(self) -> int:
        """Tasks that are being computed or wait in the executor."""
        return round(sum(flight.chunk.num_tasks / len(flight.tickets) for flight in self._flights.values()))

    def run(self) -> Iterator[Finished | None]:
        """Yield each chunk as it finishes, and ``None`` now and then while nothing does.

        Raises
        ------
        TinyTrainError
            What a worker said of its machine (it cannot write, say), when as many said so in a row as there are
            workers: that is no fault of a task, and trying elsewhere does not help.
        ClusterError
            Machines died under one chunk ``MAX_LOSSES`` times.
        """
        while not self._backlog.is_empty or self._flights:
            self._fill()
            outcome = self._executor.next_outcome(timeout_s=POLL_S)
            flight = self._flights.pop(outcome.ticket, None) if outcome is not None else None
            if flight is not None and outcome is not None:
                flight.tickets.discard(outcome.ticket)
                yield from self._settle(flight, outcome)
            else:
                yield None

    def _fill(self) -> None:
        """Keep the window full; its width follows the cluster."""
        num_workers = self._executor.num_workers
        # with no CPU left one chunk still goes out: the executor says when waiting for it has become hopeless
        width = max(1, round(self._settings.window_per_worker * num_workers))
        while len(self._flights) < width:
            chunk = self._backlog.take(num_workers)
            if chunk is None:
                break
            self._submit(_Flight(chunk, self._clock(), self._overdue_s(chunk)))
        if self._settings.speculate and self._backlog.is_empty:
            self._double_overdue(num_workers - len(self._flights))

    def _submit(self, flight: _Flight) -> None:
        ticket = self._submit_call(flight.chunk, deadline_s=self._settings.deadline_s)
        flight.tickets.add(ticket)
        flight.copies += 1
        self._flights[ticket] = flight
        self._say("dispatched" if flight.copies == 1 else "doubled", **named(flight.chunk))

    def _overdue_s(self, chunk: Chunk) -> float:
        predicted = chunk.num_tasks * self._backlog.rates.unit_seconds((chunk.domain, chunk.cells))
        return max(OVERDUE_S, OVERDUE_FACTOR * predicted)

    def _double_overdue(self, num_idle: int) -> None:
        """Give idle workers copies of what drags: a slow machine must not hold up the end."""
        now = self._clock()
        flights = {id(flight): flight for flight in self._flights.values()}.values()
        # dead copies count, too: where they die in turn, the death of the last one must be seen
        dragging = [f for f in flights if f.copies < MAX_COPIES and now - f.since > f.overdue_s]
        for flight in sorted(dragging, key=lambda f: f.since)[: max(0, num_idle)]:
            self.retried += 1
            flight.since = now
            self._submit(flight)

    def _settle(self, flight: _Flight, outcome: Outcome) -> Iterator[Finished]:
        chunk = flight.chunk
        if isinstance(outcome.value, TinyTrainError):
            self._troubles += 1
            if self._troubles >= self._executor.num_workers:
                raise outcome.value
            outcome = replace(outcome, value=None, failure=Failure("lost", describe(outcome.value)))
        if outcome.failure is None:
            assert isinstance(outcome.value, ChunkReport)
            for ticket in flight.tickets:  # the slower copy: its outcome is no longer waited for
                del self._flights[ticket]
                self._executor.cancel(ticket)
            self._troubles = 0
            seconds, group = outcome.value.seconds, (chunk.domain, chunk.cells)
            self._backlog.rates.observe(group, seconds=seconds, num_tasks=chunk.num_tasks)
            report = outcome.value
            yield Finished(chunk, report.record, None, report.computed_on, seconds, report.tuned_alone)
        elif not flight.tickets:
            yield from self._blame(chunk, outcome.failure, outcome.progress)

    def _blame(self, chunk: Chunk, failure: Failure, progress: object) -> Iterator[Finished]:
        """Try again what can be; yields the one task that is to blame."""
        _log.warning("%d tasks %s (attempt %d): %s", chunk.num_tasks, failure.kind, chunk.attempt, failure.message)
        event = "failed" if failure.kind == "error" else "worker_lost"
        self._say(event, kind=failure.kind, message=failure.message, **named(chunk))
        again = replace(chunk, attempt=chunk.attempt + 1)
        if failure.kind == "lost":
            self._losses[chunk.name] += 1
            if self._losses[chunk.name] >= MAX_LOSSES:
                raise ClusterError(f"{MAX_LOSSES} times the machine of one chunk failed, last: {failure.message}")
            self._retry(again)
            return
        if chunk.num_tasks > 1:
            parts = again.halves()
            if failure.kind == "timeout" and isinstance(progress, Tick):
                parts = again.cut(progress.place, 1) if progress.every else again.cut(progress.place)
                if progress.every:
                    guilty = parts.pop(1 if progress.place else 0)
                    yield Finished(replace(guilty, attempt=chunk.attempt), None, failure)
            self._say("bisected", parts=[part.num_tasks for part in parts], **named(chunk))
            self._put_back(parts)
            return
        self._deaths[chunk.name] += 1
        if failure.kind == "crashed" and self._deaths[chunk.name] < self._settings.max_attempts:
            self._retry(again)
        else:
            yield Finished(chunk, None, failure)

    def _retry(self, chunk: Chunk) -> None:
        self._say("retried", **named(chunk))
        self._put_back([chunk])

    def _put_back(self, chunks: list[Chunk]) -> None:
        self.retried += len(chunks)
        self._backlog.put_back(chunks)


def named(chunk: Chunk) -> dict[str, Any]:
    """Return how the run's log names a chunk."""
    return {
        "domain": chunk.domain, "first_task": chunk.ranges[0][0], "tasks": chunk.num_tasks, "attempt": chunk.attempt
    }  # fmt: skip
