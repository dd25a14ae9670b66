"""How far a run is: one line for its user, ``status.json`` for everyone else."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.progress import ProgressMeter
from tinytrain_dist.foundation.storage import Storage

STATUS = "status.json"
EVERY_S = 1.0
MEMORY_S = 60.0
"""The rate, and the time that is left by it, are those of the last minute."""


@dataclass
class RunStatus:
    """Counts of one command. A unit is a task; ``cached`` ones were there before.

    ``clock`` is monotonic: a wall clock that jumps changes no duration. Of the time workers were there for,
    ``worker_s``, the tasks that counted took ``busy_s``: what is between them went to dispatch, to reading and
    writing, to waiting, to copies that came second and to what died; while the run goes on, to chunks in flight too.
    """

    storage: Storage
    total: int
    cached: int
    meter: ProgressMeter | None = None
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    rows: int = 0
    failed: int = 0
    retried: int = 0
    in_flight: int = 0
    workers: int = 0
    busy_s: float = 0.0
    worker_s: float = 0.0
    _start: float = field(init=False)
    _counted: float = field(init=False)
    _written: float = field(default=float("-inf"), init=False)
    _marks: deque[tuple[float, int, int]] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self._start = self._counted = self.clock()
        self._marks.append((self._start, 0, 0))

    def count_workers(self, number: int) -> None:
        """Say how many workers there are from now on; to be called often while there is work."""
        now = self.clock()
        self.worker_s += self.workers * (now - self._counted)
        self.workers, self._counted = number, now

    def add(self, *, tasks: int, rows: int, failed: int, seconds: float = 0.0) -> None:
        """Count a finished chunk whose tasks took ``seconds``."""
        self.busy_s += seconds
        self.done, self.rows, self.failed = self.done + tasks, self.rows + rows, self.failed + failed
        now = self.clock()
        if now - self._marks[-1][0] >= EVERY_S:
            self._marks.append((now, self.done, self.rows))
            while len(self._marks) > 2 and now - self._marks[0][0] > MEMORY_S:
                self._marks.popleft()
        if self.meter is not None:
            extra = f"{self.cached} cached, {self.retried} retried, {self.in_flight} in flight"
            self.meter.advance(tasks, failed=failed, note=extra)

    def rates(self) -> tuple[float, float]:
        """Return units and rows per second, lately."""
        then, units, rows = self._marks[0]
        seconds = max(self.clock() - then, 1e-9)
        return (self.done - units) / seconds, (self.rows - rows) / seconds

    def document(self, state: str) -> dict[str, Any]:
        """Return everything as JSON values; ``eta_s`` is null while nothing has finished."""
        units, rows = self.rates()
        left = self.total - self.cached - self.done
        return {
            "state": state,
            "total": self.total,
            "done": self.cached + self.done,
            "cached": self.cached,
            "computed": self.done,
            "failed": self.failed,
            "retried": self.retried,
            "in_flight": self.in_flight,
            "workers": self.workers,
            "worker_s": round(self.worker_s, 3),
            "busy_s": round(self.busy_s, 3),
            "lost_share": round(1 - self.busy_s / self.worker_s, 4) if self.worker_s > 0 else None,
            "units_per_s": round(units, 3),
            "rows_per_s": round(rows, 3),
            "eta_s": round(left / units, 1) if units > 0 else None,
            "elapsed_s": round(self.clock() - self._start, 3),
            "updated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "driver": {"host": socket.gethostname(), "pid": os.getpid()},
        }

    def write(self, state: str = "running", *, now: bool = False) -> None:
        """Replace ``status.json``, at most once a second unless ``now``; it is for information: failing is no error."""
        if now or self.clock() - self._written >= EVERY_S:
            self._written = self.clock()
            with suppress(StorageError):
                self.storage.write(STATUS, json.dumps(self.document(state), indent=1).encode())
