"""Calls and workers that the tests send to other processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from tinytrain_dist.execution.ahead import Ahead


def double(value: int) -> int:
    return 2 * value


def raise_value_error(text: str) -> None:
    raise ValueError(text)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop_self(file: str) -> None:
    """Stand still, as a machine that swaps or a debugger makes a process do."""
    Path(file).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def unpicklable() -> object:
    return (item for item in ())


def add_up(array: np.ndarray, scale: float) -> tuple[float, bool, str]:
    return float(array.sum() * scale), bool(array.flags.writeable), str(array.dtype)


def threads() -> tuple[str | None, int]:
    import torch

    return os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()


class Adder:
    """A worker with state that no result may depend on."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.calls = 0

    def add(self, array: np.ndarray, slot: int) -> tuple[int, float]:
        self.calls += 1
        return slot, float(array.sum()) + self.offset + slot

    def add_or_die_once(self, folder: str, slot: int) -> int:
        """Slot 3 kills its worker the first time it is tried."""
        marker = Path(folder) / "died"
        if slot == 3 and not marker.exists():
            marker.touch()
            kill_self()
        return slot + self.offset

    def always_die(self, slot: int) -> int:
        if slot == 1:
            kill_self()
        return slot

    def refuse(self, slot: int) -> int:
        raise KeyError(slot)


class Preparer:
    """A worker that prepares what it expects; says when it prepared a slot."""

    def __init__(self) -> None:
        self.ahead: Ahead[str, float] = Ahead(lambda slot: time.monotonic())

    def expect(self, slots: Sequence[str]) -> None:
        self.ahead.expect(slots)

    def prepared_at(self, slot: str) -> float:
        time.sleep(0.2)  # so that actors take turns
        return self.ahead.get(slot)


def dying_factory() -> Adder:
    sys.stdout.flush()
    kill_self()
    return Adder()


def ticking(ticks: int, seconds: float, last_s: float = 0.0) -> Generator[int, None, int]:
    """Give a sign of life before each of ``ticks`` sleeps, then sleep on without one; return the number of ticks."""
    for number in range(ticks):
        yield number
        time.sleep(seconds)
    time.sleep(last_s)
    return ticks


def take(num_bytes: int, seconds: float) -> int:
    """Hold memory for some seconds."""
    held = np.ones(num_bytes, dtype=np.uint8)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
    return int(held[0])
