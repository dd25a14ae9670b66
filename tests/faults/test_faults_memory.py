"""The memory limit of a task: who takes too much is told, who comes after is not blamed for what is left."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from tinytrain_dist.execution.memory_watch import MemoryLimitError, MemoryWatch, resident_bytes

MB = 1 << 20


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Cycles stay until somebody collects them."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def leave_a_cycle() -> None:
    """Leave 300 MB that only the collector can free, as an error that holds its own frame does."""
    taken = [bytearray(b"x") * (50 * MB) for _ in range(6)]
    taken.append(taken)  # type: ignore[arg-type]


def pause(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def test_what_an_earlier_task_left_behind_is_collected_before_a_later_one_is_blamed(no_collection: None) -> None:
    limit = resident_bytes() + 150 * MB
    leave_a_cycle()
    assert resident_bytes() > limit
    with MemoryWatch(limit, ends_process=False):
        pause(0.5)
    assert resident_bytes() < limit


def test_what_a_task_holds_itself_stops_it(no_collection: None) -> None:
    limit = resident_bytes() + 150 * MB
    kept = []
    with (
        pytest.raises(MemoryLimitError, match=r"executor\.memory_bytes allows"),
        MemoryWatch(limit, ends_process=False),
    ):
        kept.append(bytearray(b"x") * (300 * MB))
        pause(5.0)
