"""One driver per run directory: a lock file that names its holder; a dead holder's lock is taken over."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinytrain_dist.foundation.errors import RunLockedError, StorageError
from tinytrain_dist.foundation.logs import logger

_log = logger(__name__)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder``'s lock; raises ``RunLockedError`` naming a living holder."""
    path = folder / "lock.json"
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": _start_of(os.getpid())}
    _acquire(path, json.dumps(holder))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _acquire(path: Path, content: str) -> None:
    for _ in range(2):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            _remove_if_dead(path)
            continue
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
        with os.fdopen(handle, "w") as stream:
            stream.write(content)
        return
    raise RunLockedError(f"{path.parent}: another driver took the lock at this moment; try again")


def _remove_if_dead(path: Path) -> None:
    try:
        holder = json.loads(path.read_text())
        pid, host, started = int(holder["pid"]), str(holder["host"]), holder["started"]
    except (OSError, ValueError, KeyError, TypeError):
        _log.warning("%s: unreadable lock is taken over", path)
        path.unlink(missing_ok=True)
        return
    if host != socket.gethostname():
        raise RunLockedError(f"{path.parent}: held by process {pid} on {host}; if it is gone, remove {path}")
    if _start_of(pid) == started:
        raise RunLockedError(f"{path.parent}: held by process {pid} on this machine; wait for it or stop it")
    _log.warning("%s: its holder (process %d) is gone; the lock is taken over", path, pid)
    path.unlink(missing_ok=True)


def _start_of(pid: int) -> str | None:
    """Return a process's start time in clock ticks since boot, ``None`` when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None
