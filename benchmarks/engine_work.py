"""Units of real computation on real workers: how much of their time is lost, what a second worker gives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.methods import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.execution.executor import Executor, Outcome
from tinytrain_dist.execution.settings import ExecutorSettings, cluster, open_executor
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan
from tinytrain_dist.simulation import computing
from tinytrain_dist.simulation.dispatch import ChunkReport, Tick
from tinytrain_dist.simulation.plan_run import plan_run
from tinytrain_dist.simulation.request import Cells, Chunk, ShardRecord
from tinytrain_dist.simulation.settings import SimulationSettings
from tinytrain_dist.simulation.status import RunStatus
from tinytrain_dist.simulation.store import RunStore
from tinytrain_dist.simulation.worker import run_chunk

CELLS: Cells = (("tinytrain", ("raspberry_pi_4b",)),)


class Sines(Method):
    """Takes sines for so many steps instead of tuning; all around it is what every method has."""

    name, citation, tuner = "sines", "a benchmark", "sines"

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def decide(self, question: PlanQuestion) -> Decision:
        """Update the last layer."""
        last = LayerUpdate(layer=question.graph.layers[-1].index)
        return Decision(status="ok", plan=UpdatePlan(backbone=question.graph.name, updates=(last,)))

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        """Compute for the given time."""
        value = first_value()
        for _ in range(self.steps):
            value = np.sin(value)
        return Adaptation(accuracy_before=0.5, accuracy_after=0.5, losses=(1.0, float(value[0])))


def sines_chunk(steps: int, *args: Any) -> Generator[Tick, None, Any]:
    """Run a chunk as every worker does, where the method may not be known yet."""
    know(steps)
    return (yield from run_chunk(*args))


def know(steps: int) -> None:
    """Make the method known to this process."""
    list(METHODS)  # load the built-in ones first
    METHODS._items[Sines.name] = Sines(steps)


class Metered:
    """An executor that notes the seconds that the units of every chunk took."""

    def __init__(self, inner: Executor) -> None:
        self._inner, self.seconds = inner, 0.0

    def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
        """Return the executor's next outcome."""
        outcome = self._inner.next_outcome(timeout_s=timeout_s)
        if outcome is not None and isinstance(outcome.value, ChunkReport):
            self.seconds += outcome.value.seconds
        return outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


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
    """Return wall seconds, seconds spent in units and their share of the workers' time.

    All of a run but its tables: the engine's own ``Computation``, ``run_chunk`` and shards, in workers that are warm.
    """
    know(steps)
    with open_executor(ExecutorSettings(num_workers=num_workers)) as workers:
        _computed(workers, num_units=4 * num_workers, steps=steps)  # workers start and import before the clock does
        metered = Metered(workers)
        start = time.monotonic()
        _computed(metered, num_units=num_units, steps=steps)
        wall = time.monotonic() - start
    return {"wall_s": wall, "unit_s": metered.seconds, "lost": 1 - metered.seconds / (wall * num_workers)}


def _computed(workers: Executor | Metered, *, num_units: int, steps: int) -> None:
    """Compute units of one method on one device into a folder of their own."""
    settings = SimulationSettings(
        domains=("signs",), num_tasks=num_units, methods=(Sines.name,), devices=("raspberry_pi_4b",), resolution=32,
        backbone="mobilenet_v2_w0.1", episodes=EpisodeSettings(way=3, shot=2, query=3),
    )  # fmt: skip
    plan = plan_run(settings)
    with TemporaryDirectory() as folder:
        plan = replace(plan, setup=replace(plan.setup, run_folder=folder))
        storage = open_storage(folder)
        store, status = (
            RunStore(storage, identity=plan.setup.run_identity),
            RunStatus(storage, total=num_units, cached=0),
        )
        original, computing.run_chunk = computing.run_chunk, partial(sines_chunk, steps)  # type: ignore[assignment]
        try:
            work = computing.Computation(plan, store, status, computed_on=set())
            work.run(plan.grid.outline(store.coverage), workers)  # type: ignore[arg-type]
        finally:
            computing.run_chunk = original
        assert store.coverage.count() == num_units and not status.failed


def lost_time(*, num_units: int, unit_ms: float) -> dict[str, Any]:
    """Return lost time at one and two workers on the same units, and the seconds Ray took to start."""
    steps = steps_for(unit_ms)
    start = time.monotonic()
    with cluster(ExecutorSettings(num_workers=2)):
        started = time.monotonic() - start
        two, one = (one_run(num_units=num_units, steps=steps, num_workers=workers) for workers in (2, 1))
    return {"start_s": started, "two": two, "one": one, "speedup": one["wall_s"] / two["wall_s"]}


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
