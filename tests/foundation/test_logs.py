"""The log: nothing is said ten thousand times."""

from __future__ import annotations

import logging

import pytest

from tinytrain_dist.foundation import logs
from tinytrain_dist.foundation.logs import REPEATS, RepeatFilter


def say(shown: RepeatFilter, message: str, *args: object) -> str | None:
    record = logging.LogRecord("tinytrain_dist.x", logging.WARNING, "", 0, message, args, None)
    return record.getMessage() if shown.filter(record) else None


def test_a_repeated_message_is_held_back_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    shown = RepeatFilter()
    said = [say(shown, "task %d failed", number) for number in range(10_000)]
    assert [text for text in said if text] == [
        *(f"task {number} failed" for number in range(REPEATS - 1)),
        f"task {REPEATS - 1} failed (more like this: once a minute)",
    ]
    assert say(shown, "another message") == "another message"
    now = 61.0
    assert say(shown, "task %d failed", 7) == f"task 7 failed ({10_000 - REPEATS} more like this)"
    assert say(shown, "task %d failed", 8) is None
