"""One call in a worker: prepared the same everywhere, with signs of life, its failure a value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal

from tinytrain_dist.execution.executor import describe
from tinytrain_dist.execution.memory_watch import MemoryWatch
from tinytrain_dist.execution.threads import keep_freed_memory, use_one_thread

Kind = Literal["tick", "value", "error"]
Step = tuple[Kind, Any]


def steps_of(function: Callable[..., Any], *args: Any, memory_bytes: int | None, ends_process: bool) -> Iterator[Step]:
    """Run a call; yields a tick for each value a generator function yields, then its value or its error's text."""
    use_one_thread()
    keep_freed_memory()
    with MemoryWatch(memory_bytes, ends_process=ends_process):
        try:
            if inspect.isgeneratorfunction(function):
                running = function(*args)
                while True:
                    try:
                        tick = next(running)
                    except StopIteration as end:
                        value = end.value
                        break
                    yield "tick", tick
            else:
                value = function(*args)
        except Exception as error:
            yield "error", describe(error)
            return
    use_one_thread()
    yield "value", value
