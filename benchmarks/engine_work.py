"""Units of real computation on real workers: how much of their time is lost, what a second worker gives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tinytrain_dist.execution.settings import ExecutorSettings, cluster, open_executor
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.simulation.backlog import Backlog
from tinytrain_dist.simulation.dispatch import ChunkReport, Dispatcher, Tick
from tinytrain_dist.simulation.grid import Grid
from tinytrain_dist.simulation.rates import Rates
from tinytrain_dist.simulation.request import Cells, Chunk, ShardRecord
from tinytrain_dist.simulation.settings import DispatchSettings
from tinytrain_dist.simulation.store import RunStore

CELLS: Cells = (("tinytrain", ("raspberry_pi_4b",)),)


def busy_chunk(folder: str, chunk: Chunk, steps: int) -> Generator[Tick, None, ChunkReport]:
    """Take sines for every unit, write a shard of that much, say how long the units took."""
    value = first_value()
    start = told = time.monotonic()
    for place, _ in enumerate(chunk.indices()):
        if time.monotonic() - told >= 1.0:
            yield Tick(place, every=False)
            told = time.monotonic()
        for _ in range(steps):
            value = np.sin(value)
    seconds = time.monotonic() - start
    path = f"shards/{chunk.name}.parquet"
    open_storage(folder).write(path, value.tobytes()[: 2000 * chunk.num_tasks])
    return ChunkReport(record_of(chunk, {path: "0" * 64}), seconds)


def record_of(chunk: Chunk, files: dict[str, str]) -> ShardRecord:
    """Return a record of a shard that nobody reads."""
    return ShardRecord(
        name=chunk.name, domain=chunk.domain, ranges=chunk.ranges, cells=chunk.cells, rows=chunk.num_rows,
        failed_tasks=0, profiles={}, files=files, digest="0" * 64,
    )  # fmt: skip


def steps_for(unit_ms: float) -> int:
    """Return how many steps take about ``unit_ms`` here and now."""
    start, count, value = time.perf_counter(), 0, first_value()
    while time.perf_counter() - start < 1.0:
        value = np.sin(value)
        count += 1
    return max(1, round(count * unit_ms / 1000))


def first_value() -> np.ndarray:
    """Return the numbers a step works on: of a kind that never uses a second thread."""
    return np.linspace(0, 1, 20_000)


def one_run(*, num_units: int, steps: int, num_workers: int) -> dict[str, float]:
    """Return wall seconds, seconds spent in units and their share of the workers' time."""
    grid = Grid(domains=("signs",), num_tasks=num_units, cells=CELLS)
    settings = ExecutorSettings(num_workers=num_workers)
    with TemporaryDirectory() as folder, open_executor(settings) as workers:
        store = RunStore(open_storage(folder))
        for _ in range(2 * num_workers):  # workers start and import before the clock does
            workers.submit(busy_chunk, folder, Chunk(domain="warm", ranges=((0, 1),), cells=CELLS), 10)
        while workers.next_outcome() is not None:
            pass

        def submit(chunk: Chunk, *, deadline_s: float) -> int:
            return workers.submit(busy_chunk, folder, chunk, steps, deadline_s=deadline_s)

        start = time.monotonic()
        backlog = Backlog(
            grid.pieces(store.coverage), grid.outline(store.coverage), rates=Rates(lambda group: 0.1), chunk_seconds=3.0
        )
        seconds, committed = 0.0, start
        original = backlog.rates.observe

        def observe(group: Any, *, seconds: float, num_tasks: int) -> None:
            spent.append(seconds)
            original(group, seconds=seconds, num_tasks=num_tasks)

        spent: list[float] = []
        backlog.rates.observe = observe  # type: ignore[method-assign]
        for finished in Dispatcher(workers, backlog, submit=submit, settings=DispatchSettings()).run():
            if finished is not None and finished.record is not None:
                store.add(finished.record)
            if time.monotonic() - committed > 0.25:
                store.commit()
                committed = time.monotonic()
        store.commit()
        wall, seconds = time.monotonic() - start, sum(spent)
        assert store.coverage.count() == num_units
    return {"wall_s": wall, "unit_s": seconds, "lost": 1 - seconds / (wall * num_workers)}


def lost_time(*, num_units: int, unit_ms: float) -> dict[str, Any]:
    """Return lost time at one and two workers, and the seconds Ray took to start."""
    steps = steps_for(unit_ms)
    start = time.monotonic()
    with cluster(ExecutorSettings(num_workers=2)):
        started = time.monotonic() - start
        two = one_run(num_units=num_units, steps=steps, num_workers=2)
        one = one_run(num_units=num_units // 2, steps=steps, num_workers=1)
    # the one worker does half the units: per unit its wall time counts
    return {"start_s": started, "two": two, "one": one, "speedup": 2 * one["wall_s"] / two["wall_s"]}


def finished_rerun(folder: Path) -> dict[str, Any]:
    """Return the seconds of a command and of the same one again, each in a fresh process, and whether Ray ran.

    What the first process had imported in the end the second imports before its clock starts.
    """
    words = (
        "backbone.name=mobilenet_v2_w0.1", "backbone.resolution=32", "episodes.num_tasks=20", "finetune.iterations=2",
        "methods=[none,last_layer,tinytrain]", "wandb.mode=disabled", f"run.root={folder}", "run.id=rerun",
        "executor.num_workers=2",
    )  # fmt: skip
    first = _timed(words, imports=[])
    return {"first": first, "again": _timed(words, imports=first["modules"])}


def _timed(words: tuple[str, ...], *, imports: list[str]) -> dict[str, Any]:
    program = (
        "import contextlib, importlib, json, sys, time\n"
        "from tinytrain_dist.cli import main\n"
        "for name in json.loads(sys.stdin.read()):\n"
        "    with contextlib.suppress(Exception): importlib.import_module(name)\n"
        "start = time.monotonic()\n"
        "code = main(['simulate', *sys.argv[1:]])\n"
        "took = time.monotonic() - start\n"
        "ray = sys.modules.get('ray')\n"
        "on = bool(ray and ray.is_initialized())\n"
        "found = {'code': int(code), 's': took, 'ray': on, 'modules': list(sys.modules)}\n"
        "print('@' + json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        input=json.dumps(imports), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("@"))[1:])
    return found
