"""``simulate``: plan, compute what is missing, complete the run directory. The same command resumes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tinytrain_dist.execution.executor import Executor
from tinytrain_dist.execution.settings import ExecutorSettings, open_executor
from tinytrain_dist.foundation.errors import ExitCode, StorageError, TinyTrainError, TooManyFailuresError
from tinytrain_dist.foundation.interrupts import interrupt_code
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.paths import atomic_write, check_name, make_folder
from tinytrain_dist.foundation.progress import ProgressMeter, progress
from tinytrain_dist.simulation.dispatch import Finished, cut, dispatch
from tinytrain_dist.simulation.lock import run_lock
from tinytrain_dist.simulation.plan_run import RunPlan, plan_run
from tinytrain_dist.simulation.request import Chunk
from tinytrain_dist.simulation.run_document import check_identity, free_folder, write_run_document
from tinytrain_dist.simulation.settings import SimulationSettings, run_id_of
from tinytrain_dist.simulation.store import RunStore, result_hash
from tinytrain_dist.simulation.worker import crashed_result, run_chunk, write_shard

_log = logger(__name__)
MIN_TASKS_FOR_SHARE = 10
"""A run is not stopped before so many tasks: a share of fewer says nothing."""


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """Where the results are and how it went.

    Attributes
    ----------
    computed, reused
        Tasks with at least one row computed by this command, and tasks that needed nothing.
    failed
        Tasks with a row whose status is not ``ok``.
    """

    folder: Path
    computed: int
    reused: int
    failed: int
    rows: int
    exit_code: ExitCode
    result_hash: str


def simulate(
    settings: SimulationSettings,
    *,
    root: Path,
    run_id: str | None = None,
    force_new: bool = False,
    executor: ExecutorSettings | None = None,
    config: Mapping[str, Any] | None = None,
) -> SimulationResult:
    """Run ``settings`` in ``root/<run id>`` and return what came out.

    Parameters
    ----------
    run_id
        Name of the run directory; ``None`` derives it from the identity of the request.
    force_new
        Start beside a run of another identity instead of refusing.
    config
        What the user asked for, for ``run.json``; must hold no secrets.

    Raises
    ------
    RunLockedError
        Another driver holds the run, or its identity differs from the request.
    TooManyFailuresError
        More than ``max_failed_share`` of the tasks failed.
    """
    plan = plan_run(settings)
    folder = root / check_name(run_id or run_id_of(plan.identity), what="run id")
    folder = free_folder(folder) if force_new else folder
    make_folder(folder)
    plan = replace(plan, setup=replace(plan.setup, run_folder=str(folder)))
    with run_lock(folder):
        check_identity(folder, plan.identity)
        return _run(plan, folder, executor=executor or ExecutorSettings(), config=dict(config or {}))


def _run(plan: RunPlan, folder: Path, *, executor: ExecutorSettings, config: dict[str, Any]) -> SimulationResult:
    store = RunStore(folder)
    store.open()
    store.drop_repriced(plan.profile_hashes)
    missing = plan.missing(store.covered())
    total = len(plan.domains) * plan.settings.num_tasks
    _log.info("%s: %d of %d tasks to compute, %d reused", folder.name, len(missing), total, total - len(missing))
    if missing:
        (folder / "_SUCCESS").unlink(missing_ok=True)
        write_run_document(folder, plan, config, status="running")
        try:
            with open_executor(executor) as workers:
                compute(plan, store, missing, workers=workers, total=total)
        except (TinyTrainError, KeyboardInterrupt) as error:
            _record_stop(plan, store, config, error)
            raise
    return _complete(plan, store, config, computed=len(missing), total=total)


def compute(plan: RunPlan, store: RunStore, missing: list[Chunk], *, workers: Executor, total: int) -> None:
    """Dispatch the missing tasks and enter every shard into the manifest as it arrives."""
    weights, setup = workers.share(plan.weights), workers.share(plan.setup)
    chunks = cut(missing, seconds_of=plan.predicted_seconds, chunk_seconds=plan.settings.dispatch.chunk_seconds)

    def submit(chunk: Chunk, *, deadline_s: float) -> int:
        return workers.submit(run_chunk, weights, setup, chunk, deadline_s=deadline_s)

    with progress("simulate", total=total, done=total - len(missing)) as meter:
        for finished in dispatch(workers, chunks, submit=submit, settings=plan.settings.dispatch):
            _enter(plan, store, finished, meter)


def _enter(plan: RunPlan, store: RunStore, finished: Finished, meter: ProgressMeter) -> None:
    record = finished.record
    if record is None:
        assert finished.failure is not None
        status, message = finished.failure.kind, finished.failure.message
        result = crashed_result(plan.setup, finished.chunk, status=status, message=message)
        record = write_shard(finished.chunk, [result], setup=plan.setup)
    store.add(record)
    meter.advance(len(record.tasks), failed=record.failed_tasks)
    limit = plan.settings.dispatch.max_failed_share
    if meter.fresh >= MIN_TASKS_FOR_SHARE and meter.done < meter.total and meter.failed > limit * meter.fresh:
        raise TooManyFailuresError(
            f"{meter.failed} of {meter.fresh} tasks failed, more than dispatch.max_failed_share = {limit}; "
            f"see {store.folder / 'failures.parquet'}"
        )


def _record_stop(plan: RunPlan, store: RunStore, config: dict[str, Any], error: BaseException) -> None:
    """Write why the run ended before its last task; where even that cannot be stored the error itself says it."""
    code = error.exit_code if isinstance(error, TinyTrainError) else interrupt_code()
    with suppress(StorageError):
        write_run_document(store.folder, plan, config, status="stopped", exit_code=int(code))
        if isinstance(error, TooManyFailuresError):
            store.finish()


def _complete(plan: RunPlan, store: RunStore, config: dict[str, Any], *, computed: int, total: int) -> SimulationResult:
    table = store.finish()
    failed, code = _verdict(table, limit=plan.settings.dispatch.max_failed_share)
    digest = result_hash(table)
    write_run_document(store.folder, plan, config, status="finished", exit_code=int(code), result_hash=digest)
    if code != ExitCode.TOO_MANY_FAILURES:
        atomic_write(store.folder / "_SUCCESS", b"")
    return SimulationResult(
        folder=store.folder,
        computed=computed,
        reused=total - computed,
        failed=failed,
        rows=table.num_rows,
        exit_code=code,
        result_hash=digest,
    )


def _verdict(table: pa.Table, *, limit: float) -> tuple[int, ExitCode]:
    """Return how many tasks have a failed row, and what that makes of the run."""
    total = pc.count_distinct(table["task_id"]).as_py()
    failed = pc.count_distinct(table.filter(pc.not_equal(table["status"], "ok"))["task_id"]).as_py()
    if not failed:
        return 0, ExitCode.DONE
    return failed, ExitCode.TOO_MANY_FAILURES if failed > limit * total else ExitCode.PARTIAL
