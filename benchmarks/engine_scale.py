"""A million units, a hundred thousand chunks, ten million rows: memory and time of the driver's own work."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine_work import CELLS, record_of

from tinytrain_dist.execution.executor import Outcome
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.simulation.backlog import Backlog
from tinytrain_dist.simulation.coverage import Coverage
from tinytrain_dist.simulation.dispatch import ChunkReport, Dispatcher
from tinytrain_dist.simulation.grid import Grid
from tinytrain_dist.simulation.rates import Rates
from tinytrain_dist.simulation.request import Chunk
from tinytrain_dist.simulation.settings import DispatchSettings
from tinytrain_dist.simulation.store import RunStore

DEVICES = tuple(f"device_{number}" for number in range(12))
METHODS = ("none", "last_layer", "sparse_update", "tinytrain")
FULL_CELLS = tuple((method, DEVICES) for method in METHODS)


@dataclass
class Nothing:
    """An executor whose units are nothing: what is left is the engine."""

    num_workers: int = 64
    queue: deque[tuple[int, Chunk]] = field(default_factory=deque)
    tickets: int = 0

    def submit(self, chunk: Chunk, *, deadline_s: float) -> int:
        """Queue a chunk."""
        self.tickets += 1
        self.queue.append((self.tickets, chunk))
        return self.tickets

    def cancel(self, ticket: int) -> None:
        """Nothing is ever given up: no unit drags."""

    def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
        """Return the oldest chunk as done; its units are said to have taken 30 ms each."""
        ticket, chunk = self.queue.popleft()
        report = ChunkReport(record_of(chunk, {f"shards/{chunk.name}.parquet": "0" * 64}), 0.03 * chunk.num_tasks)
        return Outcome(ticket=ticket, value=report)


def dispatch_nothing(num_units: int, folder: str) -> dict[str, float]:
    """Plan and dispatch units of five domains; return seconds, chunks and the driver's peak memory. For a process."""
    import resource

    import tinytrain_dist.simulation.engine  # noqa: F401  (a driver has it loaded: the base both sizes share)

    start = time.monotonic()
    grid = Grid(domains=tuple("abcde"), num_tasks=num_units // 5, cells=FULL_CELLS)
    store = RunStore(open_storage(folder))
    outline = grid.outline(store.coverage)
    planned = time.monotonic() - start
    backlog = Backlog(grid.pieces(store.coverage), outline, rates=Rates(lambda group: 0.05), chunk_seconds=3.0)
    executor, chunks = Nothing(), 0
    for finished in Dispatcher(
        executor,  # type: ignore[arg-type]
        backlog, submit=executor.submit, settings=DispatchSettings(),
    ).run():  # fmt: skip
        if finished is not None and finished.record is not None:
            assert store.add(finished.record)
            chunks += 1
            if store.num_pending >= 64:
                store.commit()
    store.fold()
    assert store.coverage.count() == num_units * len(DEVICES) * len(METHODS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"planned_s": planned, "s": time.monotonic() - start, "chunks": chunks, "peak_bytes": peak}


def million(sizes: tuple[int, int]) -> list[dict[str, float]]:
    """Return what ``dispatch_nothing`` says of each size, in a process of its own."""
    return [in_process("engine_scale", "dispatch_nothing", size) for size in sizes]


def in_process(module: str, function: str, argument: Any) -> dict[str, Any]:
    """Return what a function of one of these modules says of (argument, an empty folder), in a fresh process."""
    program = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {module}; "
        f"print(json.dumps({module}.{function}({argument!r}, sys.argv[1])))"
    )
    with TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def commits(sizes: tuple[int, int]) -> list[dict[str, float]]:
    """Return calls, bytes and milliseconds per chunk of the last tenth of so many single commits."""
    return [_commits(size) for size in sizes]


@dataclass
class _Counting:
    inner: Any
    calls: int = 0
    num_bytes: int = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        def counted(*args: Any, **options: Any) -> Any:
            self.calls += 1
            self.num_bytes += sum(len(arg) for arg in args if isinstance(arg, bytes))
            return found(*args, **options)

        return counted


def _commits(num_chunks: int) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        storage = _Counting(open_storage(folder))
        store = RunStore(storage)  # type: ignore[arg-type]
        last, before, start = num_chunks - num_chunks // 10, (0, 0), 0.0
        for number in range(num_chunks):
            if number == last:
                before, start = (storage.calls, storage.num_bytes), time.monotonic()
            chunk = Chunk(domain="a", ranges=((number, number + 1),), cells=CELLS)
            store.add(record_of(chunk, {f"shards/{chunk.name}.parquet": "0" * 64}))
            store.commit()
        seconds, counted = time.monotonic() - start, num_chunks - last
    return {
        "chunks": num_chunks, "ms": 1e3 * seconds / counted, "calls": (storage.calls - before[0]) / counted,
        "bytes": (storage.num_bytes - before[1]) / counted,
    }  # fmt: skip


def planned_seconds(num_units: int) -> float:
    """Return the seconds it takes to list what is missing of a half finished grid."""
    grid, coverage = Grid(domains=tuple("abcde"), num_tasks=num_units // 5, cells=FULL_CELLS), Coverage()
    for domain in grid.domains:
        coverage.mark(domain, ((0, grid.num_tasks // 2),), FULL_CELLS)
    start = time.monotonic()
    grid.outline(coverage)
    return time.monotonic() - start
