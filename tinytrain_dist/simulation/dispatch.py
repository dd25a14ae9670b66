"""Dispatch: a window of chunks in flight, longest first; what dies is cut and tried again, never lost."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from tinytrain_dist.execution.executor import Executor, Failure
from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.simulation.request import Chunk, ShardRecord
from tinytrain_dist.simulation.settings import DispatchSettings

WINDOW_PER_WORKER = 2
POLL_S = 1.0
_log = logger(__name__)


@dataclass(frozen=True)
class Finished:
    """A chunk's shard, or the last failure of a chunk of one task."""

    chunk: Chunk
    record: ShardRecord | None
    failure: Failure | None


class Submit(Protocol):
    """Submits one chunk to an executor and returns its ticket."""

    def __call__(self, chunk: Chunk, *, deadline_s: float) -> int: ...


def dispatch(
    executor: Executor, chunks: Iterable[Chunk], *, submit: Submit, settings: DispatchSettings
) -> Iterator[Finished]:
    """Run all ``chunks``; yields each as it finishes.

    A chunk that fails as a whole is cut in half down to the one task to blame. A single task gets
    ``max_attempts`` attempts of its own where its worker dies, and one where it outlasts its deadline.
    Raises ``StorageError`` where a worker cannot write: that is no fault of a task.
    """
    waiting = deque(chunks)
    flying: dict[int, Chunk] = {}
    deaths: Counter[str] = Counter()
    while waiting or flying:
        # with no CPU left one chunk still goes out: the executor says when waiting for it has become hopeless
        while waiting and len(flying) < max(1, WINDOW_PER_WORKER * executor.num_workers):
            chunk = waiting.popleft()
            flying[submit(chunk, deadline_s=settings.deadline_s * len(chunk.tasks))] = chunk
        outcome = executor.next_outcome(timeout_s=POLL_S)
        if outcome is None:
            continue
        chunk = flying.pop(outcome.ticket)
        if isinstance(outcome.value, StorageError):
            raise outcome.value
        if outcome.failure is None:
            yield Finished(chunk, outcome.value, None)
        elif again := _again(chunk, outcome.failure, deaths, max_attempts=settings.max_attempts):
            waiting.extendleft(reversed(again))
        else:
            yield Finished(chunk, None, outcome.failure)


def _again(chunk: Chunk, failure: Failure, deaths: Counter[str], *, max_attempts: int) -> tuple[Chunk, ...]:
    """Return what to try after a failure of the whole call; nothing when the one task is to blame."""
    _log.warning("%d tasks %s (attempt %d): %s", len(chunk.tasks), failure.kind, chunk.attempt, failure.message)
    if len(chunk.tasks) > 1:
        return tuple(replace(half, attempt=chunk.attempt + 1) for half in chunk.halves())
    deaths[chunk.name] += 1
    if failure.kind == "crashed" and deaths[chunk.name] < max_attempts:
        return (replace(chunk, attempt=chunk.attempt + 1),)
    return ()


def cut(tasks: list[Chunk], *, seconds_of: Callable[[Chunk], float], chunk_seconds: float) -> list[Chunk]:
    """Join single-task chunks with equal cells into chunks of about ``chunk_seconds``; longest predicted first."""
    joined: list[Chunk] = []
    by_cells: dict[object, list[Chunk]] = {}
    for chunk in tasks:
        by_cells.setdefault(chunk.cells, []).append(chunk)
    for group in by_cells.values():
        per_chunk = max(1, round(chunk_seconds / max(seconds_of(group[0]), 1e-6)))
        for start in range(0, len(group), per_chunk):
            part = group[start : start + per_chunk]
            joined.append(replace(part[0], tasks=tuple(spec for chunk in part for spec in chunk.tasks)))
    return sorted(joined, key=lambda chunk: (-seconds_of(chunk) * len(chunk.tasks), chunk.name))
