"""``WorkerGroup``: stateful workers for synchronous rounds; the result does not depend on who did what.

A dead Ray actor is replaced by a new one and its slots go to whoever is free. Ray's own restarts are
off (``max_restarts=0``): an actor that can never be scheduled again would keep the queue that is fed to
it. Only an actor that has answered gets slots, so one that waits for a CPU holds up nothing. Between rounds
actors join and leave as the cluster's nodes do. A worker with a method ``expect`` is told a call's slots
before the first, and after them those it will most likely get next, so that it can prepare while it computes.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from tinytrain_dist.execution.dealing import Chunk, Dealing
from tinytrain_dist.execution.executor import describe
from tinytrain_dist.execution.needs import WorkerNeeds
from tinytrain_dist.execution.ray_session import node_resources
from tinytrain_dist.execution.threads import keep_freed_memory, use_one_thread
from tinytrain_dist.foundation.errors import ClusterError, TooManyFailuresError
from tinytrain_dist.foundation.logs import logger

_log = logger(__name__)
MAX_ATTEMPTS = 3
NO_ROOM_GRACE_S = 10.0
_POLL_S = 1.0


class WorkerGroup(Protocol):
    """Workers of equal make; ``run_round`` is a pure function of (method, shared, slots)."""

    @property
    def num_workers(self) -> int:
        """Number of workers; of Ray actors it follows the cluster."""

    def run_round(
        self, method: str, shared: Sequence[Any], slots: Sequence[Any], *, upcoming: Sequence[Any] = ()
    ) -> list[Any]:
        """Call ``worker.method(*shared, slot)`` for every slot; results in slot order.

        ``upcoming`` are the slots of the next round, where they are known: they may be prepared, and nothing more.
        An exception of the method is raised here. A slot whose worker dies goes to another one; after
        ``MAX_ATTEMPTS`` such deaths ``TooManyFailuresError`` names it.
        """

    def close(self) -> None:
        """End the workers."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _Closing:
    def close(self) -> None:
        """End the workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SerialWorkerGroup(_Closing):
    """One worker in this process."""

    num_workers = 1

    def __init__(self, factory: Callable[..., Any], *args: Any) -> None:
        use_one_thread()
        keep_freed_memory()
        self._worker = factory(*args)

    def run_round(
        self, method: str, shared: Sequence[Any], slots: Sequence[Any], *, upcoming: Sequence[Any] = ()
    ) -> list[Any]:
        """Run the slots one after another."""
        use_one_thread()
        return _call_all(self._worker, method, shared, slots, upcoming)


def _call_all(
    worker: Any, method: str, shared: Sequence[Any], slots: Sequence[Any], upcoming: Sequence[Any]
) -> list[Any]:
    call, expect = getattr(worker, method), getattr(worker, "expect", None)
    if expect is not None:
        expect([*slots, *upcoming])
    return [call(*shared, slot) for slot in slots]


class _Host:
    """The actor: builds one worker and feeds it slots; exceptions travel as values."""

    def __init__(self, factory: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._make = factory, args
        self._worker: Any = None

    def ready(self) -> Exception | None:
        use_one_thread()
        keep_freed_memory()
        factory, args = self._make
        try:
            self._worker = factory(*args)
        except Exception as error:
            return _portable(error)
        return None

    def run(self, method: str, slots: Sequence[Any], upcoming: Sequence[Any], *shared: Any) -> list[Any] | Exception:
        use_one_thread()
        try:
            return _call_all(self._worker, method, shared, slots, upcoming)
        except Exception as error:
            return _portable(error)


def _portable(error: Exception) -> Exception:
    """Return ``error`` if it survives pickling, else a RuntimeError of the same text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(describe(error))
    return error


@dataclass
class _Actor:
    handle: Any
    reference: Any = None  # of the call in flight
    chunk: Chunk | None = None  # slots of that call; None: it is starting, or idle
    ready: bool = False


class RayActorGroup(_Closing):
    """One actor per worker, over the Ray connection of this process.

    Parameters
    ----------
    factory, args
        Module-level callable that builds a worker in its actor.
    num_workers
        Number of actors at most; there are never more than the cluster has room for at the start of a round.
    needs
        What each actor takes of the cluster.
    slots_per_call
        Slots given to a worker at once; None: a round is cut into about two calls per worker.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        *args: Any,
        num_workers: int | None = None,
        slots_per_call: int | None = None,
        needs: WorkerNeeds | None = None,
    ) -> None:
        import ray

        self._ray, self._needs = ray, needs or WorkerNeeds()
        self._require_room()
        self._actor_class = ray.remote(max_restarts=0, max_task_retries=0, **self._needs.options)(_Host)
        self._make = factory, args
        self._slots_per_call = slots_per_call
        self._limit = num_workers
        self._actors: list[_Actor] = []
        self._follow_cluster()
        self._no_room_since: float | None = None
        self._deaths_at_start = 0
        self._dealing = Dealing()

    @property
    def num_workers(self) -> int:
        """Number of actors, starting ones included."""
        return len(self._actors)

    def _room(self) -> int:
        """Return how many actors the cluster has room for as it is now."""
        return self._needs.fitting(node_resources())

    def _require_room(self) -> None:
        if self._room() < 1:
            raise ClusterError(f"the Ray cluster is too small for one worker: {self._needs.lacking(node_resources())}")

    def _follow_cluster(self) -> None:
        """Start an actor wherever there is new room; end those whose room is gone, unanswering ones first."""
        room = max(1, self._room())
        wanted = min(self._limit or room, room)
        if self._actors and wanted != len(self._actors):
            _log.info("the cluster has room for %d: %d workers instead of %d", room, wanted, len(self._actors))
        self._actors.sort(key=lambda actor: not actor.ready)
        for actor in self._actors[wanted:]:
            self._ray.kill(actor.handle)
        del self._actors[wanted:]
        self._actors += [self._start() for _ in range(wanted - len(self._actors))]

    def _start(self) -> _Actor:
        handle = self._actor_class.remote(*self._make)
        return _Actor(handle, reference=handle.ready.remote())

    def run_round(
        self, method: str, shared: Sequence[Any], slots: Sequence[Any], *, upcoming: Sequence[Any] = ()
    ) -> list[Any]:
        """Deal the slots to whoever is free; shared values are stored once."""
        assert self._actors, "the group is closed (an exception in a round closes it)"
        try:
            self._follow_cluster()
            references = [self._ray.put(value) for value in shared]
            return self._run_round(method, references, slots, upcoming)
        except BaseException:
            self.close()
            raise

    def _run_round(
        self, method: str, references: list[Any], slots: Sequence[Any], upcoming: Sequence[Any]
    ) -> list[Any]:
        results: list[Any] = [None] * len(slots)
        attempts = [0] * len(slots)
        self._dealing.begin(self._cut(len(slots)), later=self._cut(len(upcoming)))
        num_missing = len(slots)
        while num_missing:
            for actor in self._deal():
                batch, after = [slots[index] for index in actor.chunk or ()], self._after(actor, slots, upcoming)
                actor.reference = actor.handle.run.remote(method, batch, after, *references)
            for actor in self._finished():
                chunk, actor.chunk = actor.chunk, None
                try:
                    answer = self._take(actor)
                except self._ray.exceptions.RayError as error:
                    self._replace(actor, error)
                    self._requeue(chunk or (), attempts, error)
                    continue
                for index, value in zip(chunk or (), answer or (), strict=True):
                    results[index] = value
                    num_missing -= 1
        return results

    def _deal(self) -> list[_Actor]:
        """Give a chunk each to the actors that are free, and return those that got one."""
        free = {id(actor): actor for actor in self._actors if actor.ready and actor.reference is None}
        dealt = self._dealing.deal(list(free))
        for key, chunk in dealt.items():
            free[key].chunk = chunk
        return [free[key] for key in dealt]

    def _after(self, actor: _Actor, slots: Sequence[Any], upcoming: Sequence[Any]) -> list[Any]:
        """Return the slots the actor will most likely get after its call."""
        chunk, is_of_next = self._dealing.tell(id(actor)) or ((), False)
        return [(upcoming if is_of_next else slots)[index] for index in chunk]

    def _cut(self, num_slots: int) -> list[Chunk]:
        size = self._slots_per_call or max(1, -(-num_slots // (2 * self.num_workers)))
        return [tuple(range(start, min(start + size, num_slots))) for start in range(0, num_slots, size)]

    def _finished(self) -> list[_Actor]:
        """Return the actors whose call has ended; raises ``ClusterError`` if there is no room left to wait for."""
        busy = {actor.reference: actor for actor in self._actors if actor.reference is not None}
        ready, _ = self._ray.wait(list(busy), num_returns=1, timeout=_POLL_S)
        if not ready:
            self._check_cluster()
        return [busy[reference] for reference in ready]

    def _take(self, actor: _Actor) -> list[Any] | None:
        """Return the results of a call that has ended, None for a start; raises what the worker raised."""
        reference, actor.reference = actor.reference, None
        answer = self._ray.get(reference)
        if isinstance(answer, Exception):
            raise answer
        actor.ready = True
        return answer  # type: ignore[no-any-return]

    def _replace(self, actor: _Actor, error: Exception) -> None:
        self._deaths_at_start = 0 if actor.ready else self._deaths_at_start + 1
        if self._deaths_at_start >= MAX_ATTEMPTS * self.num_workers:
            raise TooManyFailuresError(
                f"{self._deaths_at_start} workers in a row died while starting; last: {describe(error)}"
            )
        _log.warning("a worker died (%s); its work is given to others", type(error).__name__)
        self._ray.kill(actor.handle)
        self._actors[self._actors.index(actor)] = self._start()

    def _requeue(self, chunk: Chunk, attempts: list[int], error: Exception) -> None:
        """Queue a lost chunk's slots one by one, so that a slot that kills workers is alone the next time."""
        for index in chunk:
            attempts[index] += 1
            if attempts[index] >= MAX_ATTEMPTS:
                raise TooManyFailuresError(
                    f"slot {index}: its worker died {MAX_ATTEMPTS} times, the last time with {describe(error)}"
                )
            self._dealing.put_back((index,))

    def _check_cluster(self) -> None:
        now = time.monotonic()
        if self._room() >= 1:
            self._no_room_since = None
        elif self._no_room_since is None:
            self._no_room_since = now
        elif now - self._no_room_since > NO_ROOM_GRACE_S:
            self._require_room()

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors.clear()
