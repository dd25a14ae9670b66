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

from tinytrain_dist.execution.calling import Step, steps_of
from tinytrain_dist.execution.executor import Failure, Outcome, Shared, describe
from tinytrain_dist.execution.needs import WorkerNeeds
from tinytrain_dist.execution.ray_session import node_resources
from tinytrain_dist.foundation.errors import ClusterError

_POLL_S = 0.5
_CAPACITY_S = 1.0
"""The cluster is asked for its nodes at most so often: each question goes over the network."""


def run_call(memory_bytes: int | None, function: Callable[..., Any], *args: Any) -> Iterator[Step]:
    """Body of a task: a tick of None at the start, then the steps of the call."""
    yield "tick", None
    yield from steps_of(function, *args, memory_bytes=memory_bytes, ends_process=True)


@dataclass
class _Running:
    """One call in flight: its generator, and the moment by which it must give a sign of life, once it has started."""

    ticket: int
    stream: Any
    deadline_s: float | None
    ends_at: float = field(default=float("inf"))
    progress: Any = None
    timed_out: bool = False


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
        self._task = ray.remote(max_retries=0, **_options(self._needs))(run_call)
        self._max_workers, self._patience_s = max_workers, patience_s
        self._calls: dict[Any, _Running] = {}
        self._held: deque[tuple[int, tuple[Any, ...], float | None]] = deque()
        self._next_ticket = 0
        self._capacity, self._asked = 0, float("-inf")
        self._no_room_since: float | None = None

    @property
    def num_workers(self) -> int:
        """Workers the cluster has room for as it is now, at most ``max_workers``."""
        return min(self._room(), self._max_workers or 1_000_000)

    def _room(self) -> int:
        now = time.monotonic()
        if now - self._asked >= _CAPACITY_S:
            self._asked, self._capacity = now, self._needs.fitting(node_resources())
        return self._capacity

    @property
    def num_in_flight(self) -> int:
        """Submitted calls whose outcome has not been taken."""
        return len(self._calls) + len(self._held)

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
        while self._calls:
            self._enforce_deadlines()
            wait_s = max(0.0, min(_POLL_S, until - time.monotonic()))
            ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=wait_s, fetch_local=True)
            for stream in ready:
                if (outcome := self._advance(self._calls[stream])) is not None:
                    del self._calls[stream]
                    self._release()
                    return outcome
            if not ready:
                self._check_room()
                if time.monotonic() >= until:
                    return None
        return None

    def _advance(self, call: _Running) -> Outcome | None:
        """Take one item of a call's stream: a sign of life (None), or its outcome."""
        errors = self._ray.exceptions
        try:
            kind, item = self._ray.get(next(call.stream))
        except errors.RayTaskError as error:
            return self._failed(call, Failure("error", describe(error.cause or error)))
        except errors.RayError as error:
            return self._failed(call, Failure("crashed", f"the worker or its node died ({describe(error)})"))
        except StopIteration:
            return self._failed(call, Failure("crashed", "the worker ended without a result"))
        if kind == "tick":
            call.progress = item
            call.ends_at = time.monotonic() + (float("inf") if call.deadline_s is None else call.deadline_s)
            return None
        if kind == "error":
            return Outcome(ticket=call.ticket, failure=Failure("error", item), progress=call.progress)
        return Outcome(ticket=call.ticket, value=item)

    @staticmethod
    def _failed(call: _Running, failure: Failure) -> Outcome:
        if call.timed_out:
            failure = Failure("timeout", f"ran longer than its deadline of {call.deadline_s:g} s; its worker was ended")
        return Outcome(ticket=call.ticket, failure=failure, progress=call.progress)

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for call in self._calls.values():
            if now > call.ends_at and not call.timed_out and not self._has_news(call):
                call.timed_out = True
                self._ray.cancel(call.stream, force=True)

    def _has_news(self, call: _Running) -> bool:
        """Say whether a sign of life waits to be read: then it is this process that was late."""
        ready, _ = self._ray.wait([call.stream], num_returns=1, timeout=0)
        return bool(ready)

    def _check_room(self) -> None:
        now = time.monotonic()
        if self._room() >= 1:
            self._no_room_since = None
        elif self._no_room_since is None:
            self._no_room_since = now
        elif now - self._no_room_since > self._patience_s:
            raise ClusterError(f"the Ray cluster is too small for one worker: {self._needs.lacking(node_resources())}")

    def close(self) -> None:
        """Cancel what is in flight."""
        for call in self._calls.values():
            self._ray.cancel(call.stream, force=True)
        self._calls.clear()
        self._held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _options(needs: WorkerNeeds) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": needs.num_cpus, "num_gpus": needs.num_gpus}
    if needs.memory_bytes is not None:
        options["memory"] = needs.memory_bytes
    return options | ({"resources": dict(needs.resources)} if needs.resources else {})
