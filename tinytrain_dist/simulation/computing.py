"""The run in motion: chunks go out, shards come in, and every one is in the manifest before it counts as done."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial

from tinytrain_dist.execution.executor import Executor
from tinytrain_dist.foundation.errors import RunLockedError, StorageError, TooManyFailuresError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.simulation.backlog import Backlog
from tinytrain_dist.simulation.dispatch import Dispatcher, Finished, named
from tinytrain_dist.simulation.plan_run import RunPlan
from tinytrain_dist.simulation.rates import Group, Rates
from tinytrain_dist.simulation.request import Chunk, ShardRecord
from tinytrain_dist.simulation.run_log import RunLog
from tinytrain_dist.simulation.status import RunStatus
from tinytrain_dist.simulation.store import RunStore
from tinytrain_dist.simulation.suspects import Suspects
from tinytrain_dist.simulation.worker import failed_shard, run_chunk

_log = logger(__name__)
MIN_TASKS_FOR_SHARE = 10
"""A run is not stopped before so many tasks: a share of fewer says nothing."""
COMMIT_SHARDS, COMMIT_S = 64, 0.25
"""Shards that arrive together are committed together: so many, or those of so many seconds."""


class Computation:
    """Computes what is missing in a store.

    Attributes
    ----------
    suspects
        Given where the units run in this very process, which may have died of one before.
    computed_on
        Kinds of machines that computed the run's rows: those of earlier commands, and what is met here.
    """

    def __init__(
        self,
        plan: RunPlan,
        store: RunStore,
        status: RunStatus,
        *,
        computed_on: set[str],
        suspects: Suspects | None = None,
        log: RunLog | None = None,
    ) -> None:
        self._plan, self._store, self._status, self.computed_on = plan, store, status, computed_on
        self._is_alone_noted = False
        self._suspects, self._run_log = suspects, log or RunLog()
        self._committed = time.monotonic()

    def run(self, missing: dict[Group, int], workers: Executor) -> None:
        """Dispatch the missing tasks; what has arrived is committed however this ends.

        Raises
        ------
        TooManyFailuresError
            More than ``max_failed_share`` of the finished tasks failed.
        """
        try:
            if self._suspects is not None:
                self._suspects.settle(self._plan, self._store, run_chunk, say=self._run_log.say)
                missing = self._plan.grid.outline(self._store.coverage)
            self._dispatch(missing, workers)
        finally:
            self._commit()
            if self._suspects is not None:
                with suppress(RunLockedError, StorageError):  # what ended the run is what counts
                    self._store.guard()
                    self._suspects.clear()

    def _dispatch(self, missing: dict[Group, int], workers: Executor) -> None:
        dispatch, grid = self._plan.settings.dispatch, self._plan.grid
        function = run_chunk if self._suspects is None else partial(self._suspects.noted, run_chunk)
        weights, setup = workers.share(self._plan.weights), workers.share(self._plan.setup)

        def submit(chunk: Chunk, *, deadline_s: float) -> int:
            together = self._plan.settings.finetune.num_together if chunk.attempt == 1 else 1
            chunk = replace(chunk, stored=self._store.sources(chunk))
            return workers.submit(function, weights, setup, chunk, deadline_s=deadline_s * together)

        backlog = Backlog(
            grid.pieces(self._store.coverage), missing, rates=Rates(self._plan.unit_seconds),
            chunk_seconds=dispatch.chunk_seconds, together=self._plan.settings.finetune.num_together,
        )  # fmt: skip
        dispatcher = Dispatcher(workers, backlog, submit=submit, settings=dispatch, say=self._run_log.say)
        self._status.count_workers(workers.num_workers)
        for finished in dispatcher.run():
            if finished is not None:
                self.enter(finished)
            self._keep_up(dispatcher, workers)

    def _keep_up(self, dispatcher: Dispatcher, workers: Executor) -> None:
        now = time.monotonic()
        if self._store.num_pending >= COMMIT_SHARDS or now - self._committed >= COMMIT_S:
            self._commit()
            self._committed = now
        status = self._status
        status.retried, status.in_flight = dispatcher.retried, dispatcher.num_in_flight
        status.count_workers(workers.num_workers)
        status.write()
        self._run_log.keep_up(status)

    def _commit(self) -> None:
        shards = self._store.num_pending
        self._store.commit()
        if shards:
            self._run_log.say("committed", shards=shards, done=self._status.done, generation=self._store.generation)

    def enter(self, finished: Finished) -> None:
        """Enter a finished chunk into the store and the account."""
        record = finished.record
        if record is None:
            assert finished.failure is not None
            status, message = finished.failure.kind, finished.failure.message
            record = failed_shard(self._plan.setup, finished.chunk, status=status, message=message)
            self._run_log.say("quarantined", status=status, message=message, **named(finished.chunk))
        _check_record(record, finished.chunk)
        self._note_machine(finished.computed_on)
        self._note_alone(finished.tuned_alone)
        if self._store.add(record):
            tasks, rows, failed = record.num_tasks, record.rows, record.failed_tasks
            self._status.add(tasks=tasks, rows=rows, failed=failed, seconds=finished.seconds)
        self._check_budget()

    def _note_machine(self, found: str) -> None:
        if found and found not in self.computed_on:
            if self.computed_on:
                others, where = "; ".join(sorted(self.computed_on)), self._store.storage.location
                _log.warning("%s: rows of (%s) meet rows of (%s): last digits may differ", where, found, others)
            self.computed_on.add(found)
            self._run_log.say("machine", computed_on=found)

    def _note_alone(self, why: str) -> None:
        """Say once why tasks are not tuned together: their results are right, and slow."""
        if why and not self._is_alone_noted:
            self._is_alone_noted = True
            _log.warning("tasks are tuned one by one: %s", why)
            self._run_log.say("tuned_alone", why=why)

    def _check_budget(self) -> None:
        status, limit = self._status, self._plan.settings.dispatch.max_failed_share
        is_last = status.cached + status.done >= status.total
        if status.done >= MIN_TASKS_FOR_SHARE and not is_last and status.failed > limit * status.done:
            raise TooManyFailuresError(
                f"{status.failed} of {status.done} tasks failed, more than dispatch.max_failed_share = {limit}; "
                f"see {self._store.storage.location}/failures.parquet"
            )


def _check_record(record: ShardRecord, chunk: Chunk) -> None:
    """Assert that a shard holds what its chunk asked for: what it says is what the manifest will count as done."""
    held = (record.domain, record.ranges, record.cells, record.rows)
    assert held == (chunk.domain, chunk.ranges, chunk.cells, chunk.num_rows), f"shard {record.name}: {held} for {chunk}"
