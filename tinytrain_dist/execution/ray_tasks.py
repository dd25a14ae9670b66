"""``RayTaskExecutor``: independent calls as stateless Ray tasks of one CPU each.

A task is a generator that says when it starts, so that a deadline counts from there and not from the
queue. ``max_retries=0``: Ray would repeat a killed call silently (for memory: without end); whoever
submitted it knows better whether to repeat, split or give it up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tinytrain_dist.execution.executor import Failure, Outcome, Shared, describe
from tinytrain_dist.execution.ray_session import cluster_cpus, require_cpu
from tinytrain_dist.execution.threads import keep_freed_memory, use_one_thread

_POLL_S = 0.5
NO_CPU_GRACE_S = 10.0


def run_call(function: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """Body of a task: yields once at the start, then ``(value, None)`` or ``(None, error text)``."""
    use_one_thread()
    keep_freed_memory()
    yield None
    try:
        value = function(*args)
    except Exception as error:
        yield None, describe(error)
        return
    use_one_thread()
    yield value, None


@dataclass
class _Running:
    """One call in flight: its generator, and the moment by which it must end (known once it has started)."""

    ticket: int
    stream: Any
    deadline_s: float | None
    started: bool = False
    ends_at: float = field(default=float("inf"))
    timed_out: bool = False


class RayTaskExecutor:
    """Executor over the Ray connection of this process (see ``ray_session.connect``)."""

    def __init__(self, *, max_workers: int | None = None) -> None:
        import ray

        self._ray = ray
        self._task = ray.remote(num_cpus=1, max_retries=0)(run_call)
        self._max_workers = max_workers
        self._calls: dict[Any, _Running] = {}
        self._next_ticket = 0
        self._no_cpu_since: float | None = None

    @property
    def num_workers(self) -> int:
        """CPUs of the cluster as it is now, at most ``max_workers``."""
        return min(cluster_cpus(), self._max_workers or 1_000_000)

    @property
    def num_in_flight(self) -> int:
        """Submitted calls whose outcome has not been taken."""
        return len(self._calls)

    def share(self, value: Any) -> Shared:
        """Put ``value`` into the object store once."""
        return Shared(self._ray.put(value))

    def submit(self, function: Callable[..., Any], *args: Any, deadline_s: float | None = None) -> int:
        """Queue one call and return its ticket."""
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        plain = (arg.reference if isinstance(arg, Shared) else arg for arg in args)
        stream = self._task.remote(function, *plain)
        self._calls[stream] = _Running(ticket, stream, deadline_s)
        return ticket

    def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
        """Return any finished call. Raises ``ClusterError`` if the cluster has had no CPU for 10 s."""
        until = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while self._calls:
            self._enforce_deadlines()
            wait_s = max(0.0, min(_POLL_S, until - time.monotonic()))
            ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=wait_s, fetch_local=True)
            for stream in ready:
                if (outcome := self._advance(self._calls[stream])) is not None:
                    del self._calls[stream]
                    return outcome
            if not ready:
                self._check_cluster()
                if time.monotonic() >= until:
                    return None
        return None

    def _advance(self, call: _Running) -> Outcome | None:
        """Take one item of a call's stream: its start (None), or its outcome."""
        errors = self._ray.exceptions
        try:
            item = self._ray.get(next(call.stream))
        except errors.RayTaskError as error:
            return self._failed(call, Failure("error", describe(error.cause or error)))
        except errors.RayError as error:
            return self._failed(call, Failure("crashed", f"the worker or its node died ({describe(error)})"))
        except StopIteration:
            return self._failed(call, Failure("crashed", "the worker ended without a result"))
        if not call.started:
            call.started = True
            if call.deadline_s is not None:
                call.ends_at = time.monotonic() + call.deadline_s
            return None
        value, text = item
        if text is not None:
            return Outcome(ticket=call.ticket, failure=Failure("error", text))
        return Outcome(ticket=call.ticket, value=value)

    @staticmethod
    def _failed(call: _Running, failure: Failure) -> Outcome:
        if call.timed_out:
            failure = Failure("timeout", f"ran longer than its deadline of {call.deadline_s:g} s; its worker was ended")
        return Outcome(ticket=call.ticket, failure=failure)

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for call in self._calls.values():
            if now > call.ends_at and not call.timed_out:
                call.timed_out = True
                self._ray.cancel(call.stream, force=True)

    def _check_cluster(self) -> None:
        now = time.monotonic()
        if cluster_cpus() >= 1:
            self._no_cpu_since = None
        elif self._no_cpu_since is None:
            self._no_cpu_since = now
        elif now - self._no_cpu_since > NO_CPU_GRACE_S:
            require_cpu()

    def close(self) -> None:
        """Cancel what is in flight."""
        for call in self._calls.values():
            self._ray.cancel(call.stream, force=True)
        self._calls.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
