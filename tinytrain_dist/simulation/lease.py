"""The lock of a run in an object store: an object that its living holder rewrites every few seconds.

Every write of it is conditional on the version last seen, so of two takers one wins, and a holder whose lease was
taken over learns it at its next renewal. No two machines' clocks are compared: who waits measures with its own
steady clock for how long the object has not changed, and the holder with its own for how long it has not renewed.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tinytrain_dist.foundation.errors import RunLockedError, StorageError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.simulation.run_log import Say, unsaid

_log = logger(__name__)
LOCK_NAME = "lock.json"
_MAX_LEASE_S = 3600.0
_PATIENCE_S = 1.0  # a run that is told to stop does not wait longer for a renewal under way


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """A lease ends ``lease_s`` after the last renewal; renewals come every ``beat_s``, looks every ``look_s``."""

    lease_s: float = 30.0
    beat_s: float = 5.0
    look_s: float = 1.0

    @property
    def safe_s(self) -> float:
        """Return for how long after its last renewal a holder may still act: one renewal less than others wait."""
        return self.lease_s - self.beat_s


def steady_clock() -> float:
    """Return seconds that neither jump nor stand still while the machine sleeps (where the system can tell)."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@contextmanager
def lease(
    storage: Storage,
    *,
    times: LeaseTimes | None = None,
    clock: Callable[[], float] = steady_clock,
    say: Say = unsaid,
) -> Iterator[Lease]:
    """Hold the lease on ``storage``; raises ``RunLockedError`` naming a living holder."""
    held = Lease(storage, times=times or LeaseTimes(), clock=clock, say=say)
    held.acquire()
    held.start()
    try:
        yield held
    finally:
        held.stop()


class Lease:
    """One holder's (or waiter's) side of the lock object."""

    def __init__(self, storage: Storage, *, times: LeaseTimes, clock: Callable[[], float], say: Say = unsaid) -> None:
        self._storage, self._times, self._clock, self._say = storage, times, clock, say
        self._holder = uuid.uuid4().hex
        self._place = f"{storage.location}/{LOCK_NAME}"
        self._beats = 0
        self._version = ""
        self._renewed_at = 0.0
        self._is_waiting = False
        self._lost = ""
        self._trouble = ""
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run-lease", daemon=True)

    def acquire(self) -> None:
        """Take a free, released or expired lease; raises ``RunLockedError`` as soon as its holder shows life."""
        found = waited_for = self._storage.read_version(LOCK_NAME)
        started = self._clock()
        while not self._taken(found, waited=self._clock() - started):
            time.sleep(self._times.look_s)
            found = self._storage.read_version(LOCK_NAME)
            if found is not None and not _is_released(found[0]) and found != waited_for:
                raise self._refusal(found[0])
        self._prove_conditions()

    def start(self) -> None:
        """Renew the lease from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the renewals and give the lease back if it is still held."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=_PATIENCE_S)
        if self._thread.is_alive() or self._lost:
            return
        try:
            self._storage.replace_if(LOCK_NAME, self._text(released=True), version=self._version)
        except StorageError as error:
            _log.warning("%s; the lock is free %.0f s from now", error, self._times.lease_s)

    def renew(self) -> None:
        """Rewrite the lock object; what is found out about the lease is kept for ``check``."""
        with self._mutex:
            if self._lost:
                return
            try:
                self._rewrite()
            except StorageError as error:
                self._trouble = str(error)
                _log.warning("%s: not renewed, trying again: %s", self._place, error)
                self._say("lease_not_renewed", message=str(error))

    def check(self) -> None:
        """Raise ``RunLockedError`` if the lease has been lost, ``StorageError`` if it could not be renewed in time."""
        if self._clock() - self._renewed_at > 2 * self._times.beat_s:
            self.renew()
        if self._lost:
            raise RunLockedError(f"{self._place}: taken over by {self._lost}; this run stops and writes no more")
        overdue_s = self._clock() - self._renewed_at
        if overdue_s > self._times.safe_s:
            raise StorageError(f"{self._place}: could not be renewed for {overdue_s:.0f} s: {self._trouble}")

    def _taken(self, found: tuple[bytes, str] | None, *, waited: float) -> bool:
        """Say whether the lease was ours to take as it was ``found``, having waited for ``waited`` seconds."""
        if found is not None and not _is_released(found[0]):
            lease_s = _lease_s(found[0], default=self._times.lease_s)
            if waited < lease_s:
                self._say_once(found[0], lease_s)
                return False
            _log.warning("%s: its holder (%s) is gone after %.0f s; taken over", *self._words(found[0], waited))
            self._say("lock_taken_over", holder=holder_words(found[0]), waited_s=round(waited, 1))
        return self._put(None if found is None else found[1])

    def _say_once(self, text: bytes, lease_s: float) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            _log.warning("%s: held by %s; waiting up to %.0f s for a sign of life", *self._words(text, lease_s))

    def _put(self, version: str | None) -> bool:
        started = self._clock()
        self._beats += 1
        put = self._storage.replace_if(LOCK_NAME, self._text(), version=version)
        if put is not None:
            if self._trouble:
                self._say("lease_renewed")
            self._version, self._renewed_at, self._trouble = put, started, ""
        return put is not None

    def _rewrite(self) -> None:
        for _ in range(2):  # a second time if our own earlier write went through although its answer was lost
            if self._put(self._version):
                return
            found = self._storage.read_version(LOCK_NAME)
            document = {} if found is None else _document(found[0])
            if found is None or document.get("holder") != self._holder:
                self._lost = "nobody: the object was removed" if found is None else holder_words(found[0])
                return
            self._version = found[1]

    def _prove_conditions(self) -> None:
        """Refuse a store that takes conditional writes and ignores the condition: it would admit two drivers."""
        stale = self._version
        self._rewrite()
        for version in (stale, None):
            if self._storage.replace_if(LOCK_NAME, self._text(), version=version) is not None:
                raise StorageError(
                    f"{self._place}: this store ignores the conditions of writes; runs are not safe there"
                )

    def _keep(self) -> None:
        while not self._ended.wait(self._times.beat_s) and not self._lost:
            self.renew()

    def _text(self, *, released: bool = False) -> bytes:
        document = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "holder": self._holder,
            "beat": self._beats,  # no two writes are equal, so no two have the same version
            "lease_s": self._times.lease_s,
            "released": released,
        }
        return json.dumps(document).encode()

    def _words(self, text: bytes, seconds: float) -> tuple[str, str, float]:
        return self._place, holder_words(text), seconds

    def _refusal(self, text: bytes) -> RunLockedError:
        return RunLockedError(f"{self._storage.location}: held by {holder_words(text)}; wait for it or stop it")


def holder_words(text: bytes) -> str:
    """Return who wrote a lock, in words."""
    document = _document(text)
    try:
        return f"process {int(document['pid'])} on {document['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _document(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_released(text: bytes) -> bool:
    return _document(text).get("released") is True


def _lease_s(text: bytes, *, default: float) -> float:
    found = _document(text).get("lease_s")
    return float(found) if isinstance(found, int | float) and 0 < found <= _MAX_LEASE_S else default
