"""``SerialExecutor``: the executor of tests and debugging, in this process, one call after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from tinytrain_dist.execution.calling import steps_of
from tinytrain_dist.execution.executor import Failure, Outcome, Shared

_Call = tuple[int, Callable[..., Any], tuple[Any, ...]]


class SerialExecutor:
    """Runs a call when its outcome is asked for.

    Deadlines are not enforced: nothing could end the call, since it runs in this very thread. A call that kills its
    process kills the caller.
    """

    num_workers = 1

    def __init__(self, *, memory_bytes: int | None = None) -> None:
        self._memory_bytes = memory_bytes
        self._queue: deque[_Call] = deque()
        self._next_ticket = 0

    @property
    def num_in_flight(self) -> int:
        """Submitted calls whose outcome has not been taken."""
        return len(self._queue)

    def share(self, value: Any) -> Shared:
        """Return the value itself; of a NumPy array a read-only view, as a worker would see it."""
        if isinstance(value, np.ndarray):
            value = value.view()
            value.flags.writeable = False
        return Shared(value)

    def submit(self, function: Callable[..., Any], *args: Any, deadline_s: float | None = None) -> int:
        """Queue one call and return its ticket."""
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        self._queue.append((ticket, function, args))
        return ticket

    def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
        """Run the oldest queued call and return its outcome; None if there is none."""
        if not self._queue:
            return None
        ticket, function, args = self._queue.popleft()
        plain = (arg.reference if isinstance(arg, Shared) else arg for arg in args)
        for kind, item in steps_of(function, *plain, memory_bytes=self._memory_bytes, ends_process=False):
            if kind == "error":
                return Outcome(ticket=ticket, failure=Failure("error", item))
            value = item
        return Outcome(ticket=ticket, value=value)

    def cancel(self, ticket: int) -> None:
        """Forget a call that has not run."""
        self._queue = deque(call for call in self._queue if call[0] != ticket)

    def close(self) -> None:
        """Forget what is queued."""
        self._queue.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
