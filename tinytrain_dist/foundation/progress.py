"""Live progress: a bar on a terminal, plain lines elsewhere (at most one every few seconds)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_INTERVAL_S = 5.0


class ProgressMeter:
    """Counts finished and failed items and shows rate and remaining time."""

    def __init__(self, title: str, *, total: int, done: int, bar: Progress | None) -> None:
        self.title, self.total, self.done, self.failed = title, total, done, 0
        self._first_done, self._start, self._last_line = done, time.monotonic(), float("-inf")
        self._bar = bar
        self._task = bar.add_task(title, total=total, completed=done, extra="") if bar else None

    def advance(self, count: int = 1, *, failed: int = 0, note: str = "") -> None:
        """Record ``count`` finished items, ``failed`` of them failed."""
        self.done += count
        self.failed += failed
        extra = self.summary() + (f" {note}" if note else "")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, extra=extra)
            return
        now = time.monotonic()
        if now - self._last_line >= PLAIN_INTERVAL_S or self.done >= self.total:
            self._last_line = now
            print(f"{self.title}: {self.done}/{self.total} {extra}", file=sys.stderr, flush=True)

    @property
    def fresh(self) -> int:
        """Items finished since the meter started."""
        return self.done - self._first_done

    def summary(self) -> str:
        """Return rate, remaining time and failures in words."""
        elapsed = time.monotonic() - self._start
        rate = self.fresh / elapsed if elapsed > 0 else 0.0
        left = (self.total - self.done) / rate if rate > 0 else float("nan")
        remaining = f"{left:.0f} s left" if rate > 0 else "remaining time unknown"
        return f"{rate:.2f}/s, {remaining}, {self.failed} failed"


@contextmanager
def progress(title: str, *, total: int, done: int = 0) -> Iterator[ProgressMeter]:
    """Show the progress of ``total`` items, ``done`` of which were there before, on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressMeter(title, total=total, done=done, bar=None)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[extra]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        yield ProgressMeter(title, total=total, done=done, bar=bar)


def say(message: str) -> None:
    """Print one line about the run to stderr, whatever the log level is."""
    print(message, file=sys.stderr, flush=True)
