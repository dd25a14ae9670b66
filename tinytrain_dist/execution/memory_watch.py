"""A limit to the memory of a call: what exceeds it is stopped by an exception that says so, not by the kernel.

The resident set is looked at ten times a second. (A limit to the address space would count what torch reserves
and never touches.) A call that does not react, deep in native code, ends with its process.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

EVERY_S = 0.1
GRACE_S = 5.0
"""A call that still holds too much so long after it was told to stop is ended with its process."""
_STATM = Path("/proc/self/statm")


class MemoryLimitError(MemoryError):
    """A call took more memory than a worker may."""


def resident_bytes() -> int:
    """Return the resident memory of this process (0 where the system does not say)."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class MemoryWatch:
    """Context in which this thread gets ``MemoryLimitError`` when the process exceeds ``limit_bytes``.

    ``None`` watches nothing. With ``ends_process`` a thread that does not react ends with its process.
    """

    def __init__(self, limit_bytes: int | None, *, ends_process: bool) -> None:
        self._limit, self._ends_process = limit_bytes, ends_process
        self._stop = threading.Event()
        self._watched = threading.get_ident()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._limit is not None:
            self._thread = threading.Thread(target=self._watch, args=(self._limit,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, limit: int) -> None:
        while not self._stop.wait(EVERY_S):
            taken = _after_trimming(limit)
            if taken > limit:
                _raise_in(self._watched, f"{taken:,} bytes taken, executor.memory_bytes allows {limit:,}")
                self._wait_for_reaction(limit)

    def _wait_for_reaction(self, limit: int) -> None:
        for _ in range(round(GRACE_S / EVERY_S)):
            if self._stop.wait(EVERY_S) or _after_trimming(limit) <= limit:
                return
        if self._ends_process:
            os._exit(1)


def _after_trimming(limit: int) -> int:
    """Return the resident memory; where it is too much, freed memory that was kept is given back first.

    An error keeps what its task had taken in a cycle of references: the next task is not to blame for it.
    """
    if (taken := resident_bytes()) <= limit:
        return taken
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return taken
    return resident_bytes()


def _raise_in(thread: int, message: str) -> None:
    """Raise ``MemoryLimitError`` in another thread, at its next bytecode; only a class can be raised there."""
    error = type(MemoryLimitError.__name__, (MemoryLimitError,), {"__str__": lambda self: message})
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
