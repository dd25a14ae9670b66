"""``Executor``: submit independent calls, take their outcomes as they finish. Failures are values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

FailureKind = Literal["crashed", "timeout", "error", "lost"]


@dataclass(frozen=True)
class Failure:
    """Why a call has no value.

    Attributes
    ----------
    kind
        ``error``: the function raised. ``crashed``: its worker died, or was killed for memory: perhaps by this very
        call. ``timeout``: it ran longer than its deadline. ``lost``: its machine died, or could not start or keep
        it: no fault of the call, which is worth another attempt elsewhere.
    message
        For ``error`` the exception's type and text, else what happened to the worker.
    """

    kind: FailureKind
    message: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one submitted call; ``value`` counts only where ``failure`` is None.

    ``progress`` is the last sign of life of a call that failed, where it gave any.
    """

    ticket: int
    value: Any | None = None
    failure: Failure | None = None
    progress: Any | None = None

    def __post_init__(self) -> None:
        assert self.value is None or self.failure is None


@dataclass(frozen=True)
class Shared:
    """A value stored once by ``Executor.share``; passed to ``submit`` it arrives as the value itself."""

    reference: Any


class Executor(Protocol):
    """Runs module-level functions, each call in a worker of one thread, with no order promised.

    A generator function may yield on its way: signs of life, its value is what it returns.
    A call is attempted once: who submits it decides whether a ``crashed`` call is worth another attempt.
    """

    @property
    def num_workers(self) -> int:
        """Calls that can run side by side as the cluster is NOW (1 in this process), without workers that hang."""

    @property
    def num_in_flight(self) -> int:
        """Submitted calls whose outcome has not been taken."""

    def share(self, value: Any) -> Shared:
        """Store a large read-only value once; NumPy arrays arrive without a copy and read-only."""

    def submit(self, function: Callable[..., Any], *args: Any, deadline_s: float | None = None) -> int:
        """Queue one call and return its ticket at once; the deadline counts from the call's last sign of life."""

    def next_outcome(self, *, timeout_s: float | None = None) -> Outcome | None:
        """Return any finished call; None if nothing is in flight or nothing finished within ``timeout_s``."""

    def cancel(self, ticket: int) -> None:
        """End a call whose outcome nobody waits for any more; of a ticket that is not in flight nothing happens."""

    def close(self) -> None:
        """Give up what is in flight and release the workers."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def describe(error: BaseException) -> str:
    """Return an exception's type and text."""
    return f"{type(error).__name__}: {error}"
