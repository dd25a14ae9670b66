"""One driver per run directory, wherever it is.

On a local disk the kernel holds the lock and the file's text names its holder: it is given back however its
holder ends, SIGKILL included, so there is nothing to guess about the dead. Object stores have no such lock: there
it is a lease (``lease.py``).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tinytrain_dist.foundation.errors import RunLockedError, StorageError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.storage import Storage, open_storage
from tinytrain_dist.foundation.storage.local import LocalStorage
from tinytrain_dist.simulation.lease import LOCK_NAME, holder_words, lease
from tinytrain_dist.simulation.run_log import Say, unsaid

_log = logger(__name__)
_MAX_TEXT = 4096


class RunLock(Protocol):
    """The lock while it is held."""

    def check(self) -> None:
        """Raise ``RunLockedError`` if the lock has been lost: to be asked before the manifest is written.

        Cheap: it contacts an object store only when the lease's own renewals are overdue. What may have happened
        between this answer and a commit is caught by the commit's number, which only one driver can take.
        """
        ...


@contextmanager
def run_lock(place: str | Path | Storage, *, say: Say = unsaid) -> Iterator[RunLock]:
    """Hold the lock of a run directory; raises ``RunLockedError`` naming a living holder."""
    storage = open_storage(place) if isinstance(place, str | Path) else place
    is_local = isinstance(storage, LocalStorage)
    with _held_file(Path(storage.location), say) if is_local else lease(storage, say=say) as held:
        say("locked", by="file" if is_local else "lease")
        yield held


@dataclass(frozen=True)
class _FileLock:
    path: Path
    handle: int

    def check(self) -> None:
        """See ``RunLock.check``."""
        if not _is_at(self.path, self.handle):
            raise RunLockedError(f"{self.path}: was removed while this process held it; another may have started")


@contextmanager
def _held_file(folder: Path, say: Say) -> Iterator[_FileLock]:
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path, say)
    except OSError as error:
        raise StorageError(f"{path}: cannot be locked: {error.strerror or error}") from error
    try:
        yield _FileLock(path, handle)
    finally:
        if _is_at(path, handle):
            path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path, say: Say) -> int:
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, handle):
                _write_holder(path, handle, say)
                return handle
        except BlockingIOError:
            holder = holder_words(os.pread(handle, _MAX_TEXT, 0))
            os.close(handle)
            raise RunLockedError(f"{path.parent}: held by {holder}; wait for it or stop it") from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed the file between our opening and locking it


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _write_holder(path: Path, handle: int, say: Say) -> None:
    if os.fstat(handle).st_size:
        gone = holder_words(os.pread(handle, _MAX_TEXT, 0))
        _log.warning("%s: its holder (%s) is gone; the lock is taken over", path, gone)
        say("lock_taken_over", holder=gone)
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
