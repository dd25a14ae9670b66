"""``RayTaskExecutor``: independent calls as stateless Ray tasks.

A task is a generator that says when it starts and that it lives, so that a deadline counts from there and not from
the queue. ``max_retries=0``: Ray would repeat a killed call silently (for memory: without end); whoever submitted
it knows better whether to repeat, split or give it up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tinytrain_dist.execution.calling import steps_of
from tinytrain_dist.execution.executor import Failure, Outcome, Shared
from tinytrain_dist.execution.needs import WorkerNeeds
from tinytrain_dist.execution.ray_failures import end_worker, failure_of, is_alive, whereabouts
from tinytrain_dist.execution.ray_session import node_resources
from tinytrain_dist.foundation.errors import ClusterError

_POLL_S = 0.5
REACT_S, GIVE_UP_S = 10.0, 30.0
"""A worker that was told to end is killed by its node after so long, and its call given up after so long."""
_CAPACITY_S = 1.0
"""The cluster is asked for its nodes at most so often: each question goes over the network."""


def run_call(memory_bytes: int | None, function: Callable[..., Any], *args: Any) -> Iterator[tuple[str, Any]]:
    """Body of a task: where it runs at the start, then the steps of the call."""
    yield "start", whereabouts()
    yield from steps_of(function, *args, memory_bytes=memory_bytes, ends_process=True)


@dataclass
class _Running:
    """One call in flight: its generator, and the moment by which it must give a sign of life, once it has started."""

    ticket: int
    stream: Any
    deadline_s: float | None
    ends_at: float = field(default=float("inf"))
    progress: Any = None
    place: tuple[str, int] | None = None
    cancelled_at: float = float("inf")
    killing: Any = None


class RayTaskExecutor:
    """Executor over the Ray connection of this process (see ``ray_session.connect``).

    Parameters
    ----------
    needs
        What each call takes of the cluster.
    patience_s
        Seconds without room for a single worker after which waiting is given up.
    """

    def __init__(
        self, *, max_workers: int | None = None, needs: WorkerNeeds | None = None, patience_s: float = 10.0
    ) -> None:
        import ray

        self._ray, self._needs = ray, needs or WorkerNeeds()
        # max_calls=0: Ray would end a worker that has a GPU, or a share of one, after every call
        self._task = ray.remote(max_retries=0, max_calls=0, **self._needs.options)(run_call)
        self._max_workers, self._patience_s = max_workers, patience_s
        self._calls: dict[Any, _Running] = {}
        self._ending: dict[Any, _Running] = {}  # cancelled, waited for by nobody, and perhaps still on a worker
        self._outcomes: deque[Outcome] = deque()
        self._held: deque[tuple[int, tuple[Any, ...], float | None]] = deque()
        self._next_ticket = 0
        self._capacity, self._asked = 0, float("-inf")
        self._no_room_since: float | None = None

    @property
    def num_workers(self) -> int:
        """Workers the cluster has room for as it is now, at most ``max_workers``."""
        return max(0, min(self._room(), self._max_workers or 1_000_000) - len(self._ending))

    def _room(self) -> int:
        now = time.monotonic()
        if now - self._asked >= _CAPACITY_S:
            self._asked, self._capacity = now, self._needs.fitting(node_resources())
            self._see_ends(now)
        return self._capacity

    @property
    def num_in_flight(self) -> int:
        """Submitted calls whose outcome has not been taken."""
        return len(self._calls) + len(self._held) + len(self._outcomes)

    def share(self, value: Any) -> Shared:
        """Put ``value`` into the object store once."""
        return Shared(self._ray.put(value))

    def submit(self, function: Callable[..., Any], *args: Any, deadline_s: float | None = None) -> int:
        """Queue one call and return its ticket."""
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        plain = (arg.reference if isinstance(arg, Shared) else arg for arg in args)
        self._held.append((ticket, (self._needs.memory_bytes, function, *plain), deadline_s))
        self._release()
        return ticket

    def _release(self) -> None:
        """Give held calls to Ray; of a larger cluster no more than ``max_workers`` are used at a time."""
        limited = self._max_workers is not None and self._room() > self._max_workers
        while self._held and not (limited and len(self._calls) >= (self._max_workers or 0)):
            ticket, call, deadline_s = self._held.popleft()
            stream = self._task.remote(*call)
            self._calls[stream] = _Running(ticket, stream, deadline_s)

    def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
        """Return any finished call. Raises ``ClusterError`` if the cluster has had no room for too long."""
        until = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while self._calls and not self._outcomes:
            self._enforce_deadlines()
            wait_s = max(0.0, min(_POLL_S, until - time.monotonic()))
            if not self._take_ready(wait_s):
                self._check_room()
                if time.monotonic() >= until:
                    break
        return self._outcomes.popleft() if self._outcomes else None

    def _take_ready(self, wait_s: float) -> bool:
        """Take an item of every call that has one; say whether there was any."""
        ready, rest = self._ray.wait(list(self._calls), num_returns=1, timeout=wait_s, fetch_local=True)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=True)[0]
        for stream in ready:
            if (outcome := self._advance(self._calls[stream])) is not None:
                del self._calls[stream]
                self._outcomes.append(outcome)
        self._release()
        return bool(ready)

    def _advance(self, call: _Running) -> Outcome | None:
        """Take one item of a call's stream: a sign of life (None), or its outcome."""
        try:
            kind, item = self._ray.get(next(call.stream))
        except self._ray.exceptions.RayError as error:
            return self._failed(call, failure_of(error, node_is_alive=is_alive(call.place and call.place[0])))
        except StopIteration:
            return self._failed(call, Failure("crashed", "the worker ended without a result"))
        if kind in ("start", "tick"):
            call.progress, call.place = (item, call.place) if kind == "tick" else (None, item)
            call.ends_at = time.monotonic() + (float("inf") if call.deadline_s is None else call.deadline_s)
            return None
        if kind == "error":
            return Outcome(ticket=call.ticket, failure=Failure("error", item), progress=call.progress)
        return Outcome(ticket=call.ticket, value=item)

    @staticmethod
    def _failed(call: _Running, failure: Failure) -> Outcome:
        if call.cancelled_at < float("inf"):
            failure = Failure("timeout", f"ran longer than its deadline of {call.deadline_s:g} s; its worker was ended")
        return Outcome(ticket=call.ticket, failure=failure, progress=call.progress)

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for call in list(self._calls.values()):
            if now - call.cancelled_at > GIVE_UP_S:
                self._ending[call.stream] = self._calls.pop(call.stream)
                said = f"ran longer than its deadline of {call.deadline_s:g} s, and its worker does not react"
                self._outcomes.append(
                    Outcome(ticket=call.ticket, failure=Failure("timeout", said), progress=call.progress)
                )
            elif call.cancelled_at < now:
                self._insist(call, now)
            elif now > call.ends_at and not self._has_news(call):
                self._end(call)

    def _end(self, call: _Running) -> None:
        call.cancelled_at = time.monotonic()
        self._ray.cancel(call.stream, force=True)

    def _insist(self, call: _Running, now: float) -> None:
        """Have a worker killed that was told to end and did not."""
        if call.killing is None and call.place is not None and now - call.cancelled_at > REACT_S:
            call.killing = end_worker(*call.place)

    def cancel(self, ticket: int) -> None:
        """End a call whose outcome nobody waits for any more; until its worker has ended, it is counted as taken."""
        self._held = deque(held for held in self._held if held[0] != ticket)
        self._outcomes = deque(outcome for outcome in self._outcomes if outcome.ticket != ticket)
        for call in [call for call in self._calls.values() if call.ticket == ticket]:
            self._end(call)
            self._ending[call.stream] = self._calls.pop(call.stream)
        self._release()

    def _see_ends(self, now: float) -> None:
        """Forget calls that have ended since they were cancelled; insist on those that have not."""
        for call in list(self._ending.values()):
            while self._has_news(call):
                try:
                    kind, item = self._ray.get(next(call.stream))
                except (self._ray.exceptions.RayError, StopIteration):
                    kind, item = "value", None
                call.place = item if kind == "start" else call.place
                if kind in ("value", "error"):
                    del self._ending[call.stream]
                    break
            else:
                self._insist(call, now)

    def _has_news(self, call: _Running) -> bool:
        """Say whether a sign of life waits to be read: then it is this process that was late."""
        ready, _ = self._ray.wait([call.stream], num_returns=1, timeout=0)
        return bool(ready)

    def _check_room(self) -> None:
        now = time.monotonic()
        if self._room() > len(self._ending):
            self._no_room_since = None
        elif self._no_room_since is None:
            self._no_room_since = now
        elif now - self._no_room_since > self._patience_s:
            if self._room():
                raise ClusterError(f"none of the cluster's {self._room()} workers reacts to being ended")
            raise ClusterError(f"the Ray cluster is too small for one worker: {self._needs.lacking(node_resources())}")

    def close(self) -> None:
        """Cancel what is in flight."""
        for call in self._calls.values():
            self._ray.cancel(call.stream, force=True)
        for waiting in (self._calls, self._ending, self._held, self._outcomes):
            waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
