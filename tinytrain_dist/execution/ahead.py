"""``Ahead``: prepares expected items on one thread of its own while the caller computes with earlier ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from tinytrain_dist.execution.threads import use_one_thread

S = TypeVar("S")
T = TypeVar("T")
ITEMS_AHEAD = 2


class Ahead(Generic[S, T]):
    """Items in the order they are expected; at most ``ITEMS_AHEAD`` are prepared before they are asked for.

    Parameters
    ----------
    prepare
        A pure function, called on the other thread, or on the caller's for an item that was not expected.
    """

    def __init__(self, prepare: Callable[[S], T]) -> None:
        self._prepare = prepare
        self._thread: ThreadPoolExecutor | None = None
        self._expected: deque[S] = deque()
        self._started: deque[tuple[S, Future[T]]] = deque()

    def expect(self, items: Sequence[S]) -> None:
        """Start on ``items``, and forget what was expected before; what ``items`` begin with and is begun, is kept."""
        kept, wanted = deque[tuple[S, Future[T]]](), deque(items)
        while self._started and wanted and self._started[0][0] == wanted[0]:
            kept.append(self._started.popleft())
            wanted.popleft()
        for _, future in self._started:
            future.cancel()
        self._started, self._expected = kept, wanted
        if self._expected and self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead", initializer=use_one_thread)
        self._start_more()

    def get(self, item: S) -> T:
        """Return the prepared item; an exception of its preparation is raised here."""
        if not self._started or self._started[0][0] != item:
            self.expect([])
            return self._prepare(item)
        _, future = self._started.popleft()
        self._start_more()
        return future.result()

    def _start_more(self) -> None:
        while self._thread is not None and self._expected and len(self._started) < ITEMS_AHEAD:
            item = self._expected.popleft()
            self._started.append((item, self._thread.submit(self._prepare, item)))
