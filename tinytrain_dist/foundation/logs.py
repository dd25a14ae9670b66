"""Logging to stderr: stdout belongs to results."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import defaultdict

_ROOT = "tinytrain_dist"
REPEATS, EVERY_S = 10, 60.0
"""A message is shown so often, whatever its numbers, then once in so many seconds."""


def logger(name: str) -> logging.Logger:
    """Return the project's logger for ``name`` (a module's ``__name__``)."""
    return logging.getLogger(name if name.startswith(_ROOT) else f"{_ROOT}.{name}")


def start_logging(level: str | None = None) -> None:
    """Send the project's log lines to stderr, once; ``TINYTRAIN_LOG`` sets the level (default INFO)."""
    root = logging.getLogger(_ROOT)
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RepeatFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    root.addHandler(handler)
    root.setLevel(level or os.environ.get("TINYTRAIN_LOG", "INFO").upper())
    root.propagate = False


class RepeatFilter(logging.Filter):
    """Holds back what has been said often: of ten thousand failing tasks a log shows the first, and how many more."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[tuple[str, str], int] = defaultdict(int)
        self._held: dict[tuple[str, str], int] = defaultdict(int)
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is shown; the one that is says how many like it were not."""
        key, now = (record.name, str(record.msg)), time.monotonic()
        if self._shown[key] >= REPEATS and now - self._last[key] < EVERY_S:
            self._held[key] += 1
            return False
        self._shown[key] += 1
        self._last[key] = now
        if held := self._held.pop(key, 0):
            record.msg, record.args = f"{record.getMessage()} ({held} more like this)", ()
        elif self._shown[key] == REPEATS:
            record.msg, record.args = f"{record.getMessage()} (more like this: once a minute)", ()
        return True
