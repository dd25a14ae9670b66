"""Where the lines of ``log.jsonl`` are kept: appended on a local disk, rewritten whole in an object store.

The file holds about ``PART_BYTES`` at most; then it becomes ``log.1.jsonl``, in the place of the one before. So the log
of a run is never larger than two parts, however often the run is resumed, and rewriting it costs little.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.foundation.storage.local import LocalStorage

LOG, OLDER = "log.jsonl", "log.1.jsonl"
PART_BYTES = 1 << 20


class LogFile(Protocol):
    """Keeps lines, all of them or none; ``every_s`` is how often it is worth the trouble."""

    every_s: float

    def put(self, lines: bytes) -> None:
        """Keep whole lines behind those that are there; raises ``StorageError`` where none was kept."""


def log_file(storage: Storage) -> LogFile:
    """Return the log file of the run directory ``storage``."""
    return _Appended(Path(storage.location)) if isinstance(storage, LocalStorage) else _Rewritten(storage)


class _Appended:
    """A local file. Its folder is never made: a run directory that was removed stays removed."""

    every_s = 1.0

    def __init__(self, folder: Path) -> None:
        self._path, self._older = folder / LOG, folder / OLDER

    def put(self, lines: bytes) -> None:
        """See ``LogFile.put``."""
        try:
            self._append(lines)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror or error}") from error

    def _append(self, lines: bytes) -> None:
        handle = self._opened(len(lines))
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":  # a machine that went down in the middle of a line
                lines = b"\n" + lines
            try:
                written = os.write(handle, lines)
            except OSError:
                os.ftruncate(handle, size)
                raise
            if written < len(lines):  # a disk that has just become full
                os.ftruncate(handle, size)
                raise StorageError(f"{self._path}: cannot be written: only {written} of {len(lines)} bytes fit")
        finally:
            os.close(handle)

    def _opened(self, num_bytes: int) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        handle = os.open(self._path, flags, 0o644)
        if not _is_full(os.fstat(handle).st_size, num_bytes):
            return handle
        os.close(handle)
        self._path.replace(self._older)
        return os.open(self._path, flags, 0o644)


class _Rewritten:
    """An object, which nothing can be appended to: written whole each time, so rarely."""

    every_s = 10.0

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._kept: bytes | None = None

    def put(self, lines: bytes) -> None:
        """See ``LogFile.put``."""
        if self._kept is None:
            self._kept = self._storage.read_if_there(LOG) or b""
        if _is_full(len(self._kept), len(lines)):
            self._storage.write(OLDER, self._kept)
            self._kept = b""
        whole = self._kept + lines
        self._storage.write(LOG, whole)
        self._kept = whole


def _is_full(size: int, num_bytes: int) -> bool:
    return size > 0 and size + num_bytes > PART_BYTES
