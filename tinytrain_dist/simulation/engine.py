"""``simulate``: plan, compute what is missing, complete the run directory. The same command resumes."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinytrain_dist import __version__
from tinytrain_dist.adaptation.numerics import check_machine
from tinytrain_dist.execution.settings import ExecutorSettings, executor_for, open_executor
from tinytrain_dist.foundation.errors import (
    ExitCode,
    RunLockedError,
    StorageError,
    TinyTrainError,
    TooManyFailuresError,
)
from tinytrain_dist.foundation.interrupts import interrupt_code
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.paths import check_name
from tinytrain_dist.foundation.progress import progress
from tinytrain_dist.foundation.storage import Storage, open_storage
from tinytrain_dist.simulation.compaction import Totals
from tinytrain_dist.simulation.computing import Computation
from tinytrain_dist.simulation.finished import SUCCESS, read_totals, success_document, write_tables
from tinytrain_dist.simulation.lock import RunLock, run_lock
from tinytrain_dist.simulation.log_file import log_file
from tinytrain_dist.simulation.plan_run import RunPlan, plan_run
from tinytrain_dist.simulation.run_document import (
    COMPUTED_ON,
    check_identity,
    free_place,
    name_of,
    read_run_document,
    write_run_document,
)
from tinytrain_dist.simulation.run_log import RunLog
from tinytrain_dist.simulation.settings import SimulationSettings, run_id_of
from tinytrain_dist.simulation.status import RunStatus
from tinytrain_dist.simulation.store import RunStore
from tinytrain_dist.simulation.suspects import Suspects

_log = logger(__name__)


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """Where the results are and how it went.

    Attributes
    ----------
    location
        Absolute path or URI of the run directory.
    computed, reused
        Tasks with at least one row computed by this command, and tasks that needed nothing.
    failed
        Tasks with a row whose status is not ``ok``.
    """

    location: str
    computed: int
    reused: int
    failed: int
    rows: int
    exit_code: ExitCode
    result_hash: str

    @property
    def folder(self) -> Path:
        """The run directory of a run on a local disk."""
        assert "://" not in self.location, f"{self.location} is no local folder"
        return Path(self.location)

    @property
    def run_id(self) -> str:
        """The run directory's name."""
        return self.location.rstrip("/").rpartition("/")[2]


def simulate(
    settings: SimulationSettings,
    *,
    root: str | Path,
    run_id: str | None = None,
    force_new: bool = False,
    executor: ExecutorSettings | None = None,
    config: Mapping[str, Any] | None = None,
) -> SimulationResult:
    """Run ``settings`` in ``root/<run id>`` and return what came out.

    Parameters
    ----------
    root
        Local folder, or URI of a folder in an object store.
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
    executor = executor_on(settings, executor or ExecutorSettings())
    plan = plan_run(settings)
    name, place = check_name(run_id or run_id_of(plan.identity), what="run id"), open_storage(root)
    storage = free_place(place, name) if force_new else place.below(name)
    plan = replace(plan, setup=replace(plan.setup, run_folder=storage.location))
    log = RunLog()
    with run_lock(storage, say=log.say) as lock:
        check_identity(storage, plan.identity)
        run = _Run(plan, storage, lock, log, executor=executor, config=dict(config or {}))
        run.open()
        with log.kept_in(log_file(storage), guard=lock.check):  # not before: a run that is refused is left alone
            return run.go()


def executor_on(settings: SimulationSettings, executor: ExecutorSettings) -> ExecutorSettings:
    """Return the executor whose workers have what ``settings`` compute on.

    Raises ``ConfigError`` where they run in this very process and it does not have it; a cluster says so itself.
    """
    if executor.kind == "serial":
        check_machine(settings.finetune)
    return executor_for(settings.finetune.device, executor)


class _Run:
    """One command on one run directory, with the lock held."""

    def __init__(
        self,
        plan: RunPlan,
        storage: Storage,
        lock: RunLock,
        log: RunLog,
        *,
        executor: ExecutorSettings,
        config: dict[str, Any],
    ) -> None:
        self._plan, self._storage, self._executor, self._config = plan, storage, executor, config
        self._guard, self._run_log = lock.check, log
        earlier = read_run_document(storage)
        self._computed_on = set((earlier or {}).get(COMPUTED_ON, ()))
        self._say_start("start" if earlier is None else "resume")
        self._store = RunStore(
            storage, identity=plan.setup.run_identity, profiles=plan.profile_hashes, guard=lock.check, say=log.say
        )

    def _say_start(self, event: str) -> None:
        self._run_log.say(
            event, run=name_of(self._storage), command=self._config.get("command", ""), version=__version__,
            executor=self._executor.kind, host=socket.gethostname(), pid=os.getpid(),
        )  # fmt: skip

    def open(self) -> None:
        """Read what is there; raises where it is not to be continued."""
        self._store.open()

    def go(self) -> SimulationResult:
        """Compute what is missing and complete the tables."""
        if self._plan.settings.dispatch.retry_failed and (again := self._store.void_failed()):
            _log.info("%d failed tasks are tried again", again)
            self._run_log.say("tried_again", tasks=again)
        missing = self._plan.grid.outline(self._store.coverage)
        computed, total = sum(missing.values()), self._plan.grid.num_units
        name = name_of(self._storage)
        _log.info("%s: %d of %d tasks to compute, %d reused", name, computed, total, total - computed)
        self._run_log.say("planned", total=total, to_compute=computed, reused=total - computed)
        if computed:
            self._guard()
            self._storage.remove(SUCCESS)
            self._document("running")
            self._compute(missing, RunStatus(self._storage, total=total, cached=total - computed))
            left = self._plan.grid.outline(self._store.coverage)
            assert not left, f"{name}: {sum(left.values())} tasks are missing although everything was computed"
        return self._complete(computed, total)

    def _compute(self, missing: dict[Any, int], status: RunStatus) -> None:
        try:
            with (
                open_executor(self._executor) as workers,
                progress("simulate", total=status.total, done=status.cached) as status.meter,
            ):
                suspects = Suspects(self._storage) if self._executor.kind == "serial" else None
                computation = Computation(
                    self._plan, self._store, status,
                    computed_on=self._computed_on, suspects=suspects, log=self._run_log,
                )  # fmt: skip
                computation.run(missing, workers)
        except RunLockedError:
            raise  # the run is another driver's now: what it says of itself stays
        except (TinyTrainError, KeyboardInterrupt) as error:
            if self._is_held():
                self._record_stop(error)
                status.write("stopped", now=True)
            raise
        status.write("finished", now=True)

    def _is_held(self) -> bool:
        with suppress(RunLockedError, StorageError):  # a lease that could not be renewed may be another's too
            self._guard()
            return True
        return False

    def _document(self, state: str, **extra: Any) -> None:
        self._guard()
        extra[COMPUTED_ON] = sorted(self._computed_on)
        write_run_document(self._storage, self._plan, self._config, status=state, **extra)

    def _record_stop(self, error: BaseException) -> None:
        """Write why the run ended before its last task; where even that cannot be stored the error itself says it."""
        code = error.exit_code if isinstance(error, TinyTrainError) else interrupt_code()
        with suppress(StorageError, RunLockedError):
            self._document("stopped", exit_code=int(code))
            if isinstance(error, TooManyFailuresError):
                write_tables(self._store)

    def _complete(self, computed: int, total: int) -> SimulationResult:
        totals = read_totals(self._storage, self._store.generation)
        code = self._verdict(totals or Totals())
        if totals is None:
            totals = write_tables(self._store)
            code = self._verdict(totals)
            self._document("finished", exit_code=int(code), result_hash=totals.result_hash)
            if code != ExitCode.TOO_MANY_FAILURES:
                self._guard()
                self._storage.write(SUCCESS, success_document(totals, generation=self._store.generation))
        self._run_log.stopped(
            reason=code.describe(), exit_code=int(code), computed=computed, rows=totals.rows, failed=totals.failed_tasks
        )
        return SimulationResult(
            location=self._storage.location,
            computed=computed,
            reused=total - computed,
            failed=totals.failed_tasks,
            rows=totals.rows,
            exit_code=code,
            result_hash=totals.result_hash,
        )

    def _verdict(self, totals: Totals) -> ExitCode:
        if not totals.failed_tasks:
            return ExitCode.DONE
        too_many = totals.failed_tasks > self._plan.settings.dispatch.max_failed_share * totals.tasks
        return ExitCode.TOO_MANY_FAILURES if too_many else ExitCode.PARTIAL
