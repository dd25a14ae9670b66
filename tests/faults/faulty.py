"""A method that misbehaves on chosen tasks, in whatever process computes them; elsewhere it answers at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from tiny_simulation import LastLayerLike

from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.methods import Method
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.graphs.update_plan import UpdatePlan
from tinytrain_dist.simulation import worker

NAME = "misbehaves"
PIECE_BYTES, MOST_PIECES = 64 << 20, 26


def hang() -> None:
    time.sleep(3600)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise RuntimeError("no luck")


def hoard() -> list[bytearray]:
    """Take memory piece by piece, far beyond any limit of these tests, for as long as nobody says stop."""
    taken = []
    for _ in range(MOST_PIECES):
        taken.append(bytearray(b"x") * PIECE_BYTES)
        time.sleep(0.05)
    return taken


def hoard_and_hang() -> None:
    """Take the memory, and keep it, beside a call that sits in native code, where no exception reaches."""
    kept: list[list[bytearray]] = []
    threading.Timer(1.0, lambda: kept.append(hoard())).start()
    time.sleep(3600)


def nothing() -> int:
    return 0


def where() -> tuple[int, str | None]:
    """Return the process, and the GPUs it may see."""
    time.sleep(0.1)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


class Misbehaves(LastLayerLike):
    """Does what ``conduct`` says of a task's index; ``seconds`` passes on every task."""

    def __init__(self, conduct: dict[int, Callable[[], Any]], *, seconds: float = 0.0) -> None:
        super().__init__(NAME)
        self.conduct, self.seconds = conduct, seconds

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        time.sleep(self.seconds)
        index = int(task.task_id.rpartition("/")[2])
        self.conduct.get(index, lambda: None)()
        return Adaptation(accuracy_before=0.5, accuracy_after=0.5 + index / 1000, losses=(1.0, 0.5))


def chunk_with(method: Method) -> Callable[..., Any]:
    """Return ``run_chunk`` for workers that do not know ``method`` yet."""
    run_chunk = worker.run_chunk

    def run_chunk_with_method(*args: Any) -> Generator[Any, None, Any]:
        from tinytrain_dist.adaptation.methods import METHODS  # the worker's own, not a copy of this process's

        list(METHODS)  # load the built-in ones first
        METHODS._items[method.name] = method
        return (yield from run_chunk(*args))

    return run_chunk_with_method
