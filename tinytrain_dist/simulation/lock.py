"""One driver per run directory: the kernel holds the lock, the file's text names its holder.

The lock is given back however its holder ends, SIGKILL included, so there is nothing to guess about the dead.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinytrain_dist.foundation.errors import RunLockedError, StorageError
from tinytrain_dist.foundation.logs import logger

_log = logger(__name__)
_MAX_TEXT = 4096


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder``'s lock; raises ``RunLockedError`` naming a living holder."""
    path = folder / "lock.json"
    try:
        handle = _acquire(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be locked: {error.strerror or error}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, handle):
                _write_holder(path, handle)
                return handle
        except BlockingIOError:
            holder = _holder(handle)
            os.close(handle)
            raise RunLockedError(f"{path.parent}: held by {holder}; wait for it or stop it") from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed the file between our opening and locking it


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _write_holder(path: Path, handle: int) -> None:
    if os.fstat(handle).st_size:
        _log.warning("%s: its holder (%s) is gone; the lock is taken over", path, _holder(handle))
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)


def _holder(handle: int) -> str:
    """Return who wrote the lock file, in words."""
    try:
        found = json.loads(os.pread(handle, _MAX_TEXT, 0))
        return f"process {int(found['pid'])} on {found['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
