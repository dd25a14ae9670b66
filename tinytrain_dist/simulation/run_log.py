"""``log.jsonl``: what a run's driver did, one JSON object per line, for programs and for whoever asks afterwards.

It explains a run and decides nothing: no identity, no result hash and no resumed run looks at it, and where it cannot
be written its lines are lost and the run goes on. It stays small at any number of tasks: of each kind of event the
first ``FIRST`` are written, then one now and then, with the number of those before it that were not; and the longer a
run takes, the rarer that is. The counts of all events stand in every ``progress`` line and in the last one.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tinytrain_dist.foundation.errors import TinyTrainError
from tinytrain_dist.foundation.interrupts import interrupt_code
from tinytrain_dist.foundation.redaction import redact, secret_values
from tinytrain_dist.simulation.log_file import LogFile
from tinytrain_dist.simulation.status import RunStatus

FIRST = 50
PROGRESS_S, PROGRESS_SHARE = 10.0, 0.005
"""A progress line, and one more of an event that is frequent: every ten seconds, later every 1/200 of the run's time.
"""
MAX_TEXT, MAX_WAITING = 500, 500
"""Characters of a text at most, and lines that wait for a storage that fails."""
RETRY_S = 30.0
"""A storage that failed is left alone for so long."""


class Say(Protocol):
    """Tells what has happened; never raises."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


def unsaid(event: str, /, **fields: object) -> None:
    """Tell nobody."""


class RunLog:
    """The log of one command. What is said before ``kept_in`` is kept as soon as there is a place for it.

    ``clock`` is monotonic: ``elapsed_s`` survives a wall clock that jumps, ``time`` is the wall clock's.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._start, self._secrets = clock, clock(), secret_values()
        self._mutex = threading.Lock()  # a lease tells of its renewals from a thread of its own
        self._file: LogFile | None = None
        self._guard: Callable[[], None] = lambda: None
        self._waiting: list[bytes] = []
        self._counts: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._shown: dict[str, float] = {}
        self._lost, self._num_workers = 0, 0
        self._next_flush, self._rest_until = self._start, self._start
        self._next_progress = self._start + PROGRESS_S

    def say(self, event: str, /, **fields: object) -> None:
        """See ``Say``; safe from any thread."""
        now = self._clock()
        with self._mutex:
            self._counts[event] += 1
            if self._counts[event] > FIRST and now - self._shown[event] < self._pause(now):
                self._held[event] += 1
                return
            self._shown[event] = now
            if held := self._held.pop(event, 0):
                fields["not_shown"] = held
            self._enter(event, fields, now)

    def keep_up(self, status: RunStatus) -> None:
        """Say how far the run is when it is time to, and write what waits; to be called often."""
        if status.workers != self._num_workers:
            self.say("workers", number=status.workers, before=self._num_workers)
            self._num_workers = status.workers
        now = self._clock()
        if now >= self._next_progress:
            self._next_progress = now + self._pause(now)
            found = status.document("running")
            with self._mutex:
                self._enter("progress", {key: found[key] for key in _PROGRESS} | {"events": dict(self._counts)}, now)
        if now >= self._next_flush:
            self._flush()

    @contextmanager
    def kept_in(self, file: LogFile, *, guard: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Write to ``file`` inside the block, and at its end why it ended where that was an error.

        ``guard`` raises where the run is another driver's by now, which has a log of its own there.
        """
        self._file, self._guard = file, guard
        try:
            yield
        except BaseException as error:
            self.stopped(**_reason(error))
            raise
        finally:
            self._flush()
            self._file = None

    def stopped(self, **fields: object) -> None:
        """Say why the command ends, and what happened in it how often."""
        with self._mutex:
            self._enter("stop", fields | {"events": dict(self._counts), "lines_lost": self._lost}, self._clock())

    def _pause(self, now: float) -> float:
        return max(PROGRESS_S, PROGRESS_SHARE * (now - self._start))

    def _enter(self, event: str, fields: dict[str, object], now: float) -> None:
        head = {"time": _wall_clock(), "elapsed_s": round(now - self._start, 3), "event": event}
        self._waiting.append(_line(head | fields, self._secrets))
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        if (surplus := len(self._waiting) - MAX_WAITING) > 0:
            del self._waiting[:surplus]
            self._lost += surplus

    def _flush(self) -> None:
        now = self._clock()
        if self._file is None or now < self._rest_until:
            return
        self._next_flush = now + self._file.every_s
        with self._mutex:
            lines, self._waiting = self._waiting, []
        if not lines:
            return
        try:
            self._guard()
            self._file.put(b"".join(lines))
        except (TinyTrainError, OSError):
            self._rest_until = self._clock() + RETRY_S
            with self._mutex:
                self._waiting = lines + self._waiting
                self._forget_oldest()


_PROGRESS = (
    "total", "done", "cached", "failed", "retried", "in_flight", "workers", "worker_s", "busy_s", "lost_share",
    "units_per_s", "rows_per_s", "eta_s",
)  # fmt: skip


def _wall_clock() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


def _line(fields: dict[str, object], secrets: tuple[str, ...]) -> bytes:
    plain: dict[str, Any] = redact(json.loads(json.dumps(fields, default=str)), secrets=secrets)
    cut = {key: f"{v[:MAX_TEXT]}..." if isinstance(v, str) and len(v) > MAX_TEXT else v for key, v in plain.items()}
    return json.dumps(cut).encode() + b"\n"


def _reason(error: BaseException) -> dict[str, object]:
    """Return why a command ended early: its exit code, and the error's own words."""
    if isinstance(error, TinyTrainError):
        return {"reason": error.exit_code.describe(), "exit_code": int(error.exit_code), "message": str(error)}
    if isinstance(error, KeyboardInterrupt):
        code = interrupt_code()
        return {"reason": code.describe(), "exit_code": int(code)}
    return {"reason": "failed", "message": f"{type(error).__name__}: {error}"}
