"""A cluster in virtual time: the engine's own dispatch on workers whose units take lognormal times.

Only time is simulated: ``Dispatcher``, ``Backlog`` and ``Rates`` are the ones of a real run. A straggler is a unit
that takes five times as long, either wherever it runs (``unit``) or only in this attempt (``machine``: a busy node).
A failure ends its worker in the middle of a unit; a new worker needs seconds to start.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np

from tinytrain_dist.execution.executor import Executor, Failure, Outcome
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.simulation.backlog import Backlog
from tinytrain_dist.simulation.coverage import Coverage
from tinytrain_dist.simulation.dispatch import ChunkReport, Dispatcher
from tinytrain_dist.simulation.grid import Grid
from tinytrain_dist.simulation.rates import Rates
from tinytrain_dist.simulation.request import Cells, Chunk, ShardRecord
from tinytrain_dist.simulation.settings import DispatchSettings

CELLS: Cells = (("tinytrain", ("raspberry_pi_4b",)),)
STRAGGLERS, SLOWER, FAILURES = 0.05, 5.0, 0.01
PER_CHUNK_S, RESTART_S = 0.005, 0.0
StragglersAre = Literal["unit", "machine"]


@dataclass(frozen=True, kw_only=True)
class UnitTimes:
    """Seconds of every unit, a pure function of unit and attempt. Mean of a unit that does not straggle: ``mean_s``."""

    num_units: int
    mean_s: float
    sigma: float
    stragglers_are: StragglersAre
    seed: int = 0

    def draw(self, attempts: int = 12) -> tuple[Any, Any]:
        """Return seconds and failures, [attempts, units] each; a unit fails in its first attempt or never."""
        random = generator_of("engine_fleet", self.num_units, self.sigma, self.stragglers_are, self.seed)
        normal = random.standard_normal(self.num_units)
        seconds = self.mean_s * np.exp(self.sigma * normal - self.sigma**2 / 2)
        rows = attempts if self.stragglers_are == "machine" else 1
        slow = random.random((rows, self.num_units)) < STRAGGLERS
        table = (seconds * (1 + (SLOWER - 1) * slow)).repeat(attempts // rows, axis=0)
        fails = random.random((attempts, self.num_units)) < FAILURES
        fails[1:] = False
        return table, fails


@dataclass
class Fleet:
    """An executor whose clock is its own."""

    num_workers: int
    times: UnitTimes
    now: float = 0.0
    busy_s: float = 0.0
    idle: int = field(init=False)
    queue: deque[tuple[int, Chunk]] = field(default_factory=deque)
    events: list[tuple[float, int, Outcome | None]] = field(default_factory=list)
    tickets: int = 0

    def __post_init__(self) -> None:
        self.idle = self.num_workers
        self.seconds, self.fails = self.times.draw()
        self.tries: dict[int, int] = {}
        self.useful: dict[int, float] = {}
        self.costs: dict[int, dict[int, float]] = {}  # by ticket: seconds of each unit in this very copy

    def submit(self, chunk: Chunk, *, deadline_s: float) -> int:
        """Queue a chunk."""
        ticket = self.tickets = self.tickets + 1
        self.queue.append((ticket, chunk))
        self._start()
        return ticket

    def _start(self) -> None:
        while self.idle and self.queue:
            ticket, chunk = self.queue.popleft()
            self.idle -= 1
            seconds, failure = self._work(chunk, ticket)
            outcome = Outcome(ticket=ticket, failure=failure) if failure else _reported(ticket, chunk, seconds)
            heapq.heappush(self.events, (self.now + PER_CHUNK_S + seconds, ticket, outcome))
            if failure:  # the worker's place is taken until a new one stands there
                self.tickets += 1
                heapq.heappush(self.events, (self.now + PER_CHUNK_S + seconds + RESTART_S, self.tickets, None))

    def _work(self, chunk: Chunk, ticket: int) -> tuple[float, Failure | None]:
        """Return the seconds a chunk takes, and how it fails."""
        total, costs = 0.0, self.costs.setdefault(ticket, {})
        for unit in chunk.indices():
            attempt = self.tries.get(unit, 0)
            self.tries[unit] = attempt + 1
            row = min(attempt, len(self.seconds) - 1)
            seconds = float(self.seconds[row, unit])
            if self.fails[row, unit]:
                return total + seconds / 2, Failure("crashed", "a simulated failure")
            total += seconds
            costs[unit] = seconds
        return total, None

    def won(self, ticket: int) -> None:
        """Count a copy that was the first to end: its own seconds, not those of another copy."""
        for unit, seconds in self.costs[ticket].items():
            self.useful.setdefault(unit, seconds)

    def cancel(self, ticket: int) -> None:
        """End a copy that nobody waits for, with its worker."""
        for place, (_, running, outcome) in enumerate(self.events):
            if running == ticket and outcome is not None:
                del self.events[place]
                self.tickets += 1
                self.events.append((self.now + RESTART_S, self.tickets, None))
                heapq.heapify(self.events)
                return
        self.queue = deque(item for item in self.queue if item[0] != ticket)

    def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
        """Let time pass until a chunk ends."""
        until = self.now + (math.inf if timeout_s is None else timeout_s)
        while self.events and self.events[0][0] <= until:
            self.now, _, outcome = heapq.heappop(self.events)
            if outcome is None or outcome.failure is None:
                self.idle += 1
                self._start()
            if outcome is not None:
                if outcome.failure is None:
                    self.won(outcome.ticket)
                return outcome
        self.now = until if until < math.inf else self.now
        return None

    def utilisation(self) -> float:
        """Return the share of worker time that went into each unit's copy that counted."""
        return sum(self.useful.values()) / (self.now * self.num_workers)


def _reported(ticket: int, chunk: Chunk, seconds: float) -> Outcome:
    record = ShardRecord(
        name=chunk.name, domain=chunk.domain, ranges=chunk.ranges, cells=chunk.cells, rows=chunk.num_rows,
        failed_tasks=0, profiles={}, files={}, digest="0",
    )  # fmt: skip
    return Outcome(ticket=ticket, value=ChunkReport(record, seconds))


def ours(fleet: Fleet, **settings: Any) -> float:
    """Return the utilisation under the engine's dispatch."""
    executor: Executor = fleet  # type: ignore[assignment]
    grid = Grid(domains=("signs",), num_tasks=fleet.times.num_units, cells=CELLS)
    rates = Rates(lambda group: 1.0)
    chosen = DispatchSettings(**settings)
    coverage = Coverage()
    backlog = Backlog(grid.pieces(coverage), grid.outline(coverage), rates=rates, chunk_seconds=chosen.chunk_seconds)
    dispatcher = Dispatcher(executor, backlog, submit=fleet.submit, settings=chosen, clock=lambda: fleet.now)
    done = [f for f in dispatcher.run() if f is not None]
    assert sum(finished.chunk.num_tasks for finished in done) == grid.num_units
    return fleet.utilisation()


def unordered_chunks(fleet: Fleet, *, chunk_seconds: float = 3.0) -> float:
    """Return the utilisation of equal chunks in the order of the grid, whoever is free takes the next."""
    size = max(1, round(chunk_seconds / fleet.times.mean_s))
    chunks = _chunks(range(0, fleet.times.num_units, size), size, fleet.times.num_units)
    return _drain(fleet, chunks)


def round_robin(fleet: Fleet) -> float:
    """Return the utilisation when the units are dealt to the workers beforehand."""
    loads = [0.0] * fleet.num_workers
    for unit in range(fleet.times.num_units):
        place = unit % fleet.num_workers
        seconds, failure = fleet._work(Chunk(domain="signs", ranges=((unit, unit + 1),), cells=CELLS), unit)
        if failure:
            again, _ = fleet._work(Chunk(domain="signs", ranges=((unit, unit + 1),), cells=CELLS), unit)
            seconds += RESTART_S + again
        fleet.won(unit)
        loads[place] += seconds + PER_CHUNK_S
    fleet.now = max(loads)
    return fleet.utilisation()


def _chunks(starts: range, size: int, stop: int) -> Iterator[Chunk]:
    for start in starts:
        yield Chunk(domain="signs", ranges=((start, min(start + size, stop)),), cells=CELLS)


def _drain(fleet: Fleet, chunks: Iterator[Chunk]) -> float:
    flying: dict[int, Chunk] = {}
    waiting = deque(chunks)
    while waiting or flying:
        while waiting and len(flying) < 2 * fleet.num_workers:
            chunk = waiting.popleft()
            flying[fleet.submit(chunk, deadline_s=1e9)] = chunk
        outcome = fleet.next_outcome()
        assert outcome is not None
        chunk = flying.pop(outcome.ticket)
        if outcome.failure is not None:
            waiting.append(chunk)
    return fleet.utilisation()


def measured_sigma(run: Path) -> float:
    """Return the standard deviation of the logarithm of a run's seconds per task: of its distinct tunings together."""
    tunings = f"SELECT DISTINCT task_id, method, plan_hash, host_ms FROM '{run}/results/*.parquet' WHERE host_ms > 0"
    per_task = f"SELECT sum(host_ms) AS ms FROM ({tunings}) GROUP BY task_id"
    (found,) = duckdb.sql(f"SELECT stddev(ln(ms)) FROM ({per_task})").fetchall()
    return float(found[0])


def table(
    *, num_workers: int, units_per_worker: int, mean_s: float, sigma: float, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Return utilisation per policy and kind of straggler: mean and lowest over the seeds."""
    policies: dict[str, Callable[[Fleet], float]] = {
        "this engine": ours,
        "this engine, no second copies": lambda fleet: ours(fleet, speculate=False),
        "unordered chunks of 3 s": unordered_chunks,
        "round-robin": round_robin,
    }
    rows = []
    for kind in ("machine", "unit"):
        for name, policy in policies.items():
            found = [
                policy(
                    Fleet(
                        num_workers,
                        UnitTimes(
                            num_units=num_workers * units_per_worker, mean_s=mean_s, sigma=sigma,
                            stragglers_are=kind, seed=seed,  # type: ignore[arg-type]
                        ),
                    )
                )
                for seed in seeds
            ]  # fmt: skip
            rows.append({"stragglers": kind, "policy": name, "mean": sum(found) / len(seeds), "lowest": min(found)})
    return rows
