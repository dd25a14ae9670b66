"""SIGTERM ends a job the way Ctrl-C does: clean-up runs, locks are given back, the exit code says which it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tinytrain_dist.foundation.errors import ExitCode

_last_code = ExitCode.INTERRUPTED


@contextmanager
def graceful_termination() -> Iterator[None]:
    """Turn SIGTERM into ``KeyboardInterrupt`` inside the block; outside the main thread nothing changes.

    It has to be ``KeyboardInterrupt``: Ray's blocking calls swallow every other exception of a signal handler.
    """
    global _last_code
    _last_code = ExitCode.INTERRUPTED
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupt_code() -> ExitCode:
    """Return what the ``KeyboardInterrupt`` now in flight means: Ctrl-C, or SIGTERM."""
    return _last_code


def _terminate(number: int, frame: FrameType | None) -> None:
    global _last_code
    _last_code = ExitCode.TERMINATED
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not break the clean-up
    raise KeyboardInterrupt
