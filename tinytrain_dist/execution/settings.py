"""Where calls run: settings, and the doors to executors and worker groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tinytrain_dist.execution.executor import Executor
from tinytrain_dist.execution.needs import DeviceName, WorkerNeeds
from tinytrain_dist.execution.ray_session import connect
from tinytrain_dist.execution.ray_tasks import RayTaskExecutor
from tinytrain_dist.execution.serial import SerialExecutor
from tinytrain_dist.execution.worker_group import RayActorGroup, SerialWorkerGroup, WorkerGroup
from tinytrain_dist.foundation.errors import ConfigError, nearest

KINDS = ("ray", "serial")


@dataclass(frozen=True, kw_only=True)
class ExecutorSettings:
    """Where calls run; results never depend on it.

    Attributes
    ----------
    kind
        ``ray``, or ``serial``: in this process.
    num_workers
        Workers to use at most; None: as many as the machine, or the cluster that is joined, has room for.
    address
        ``host:port`` of a Ray cluster, or ``auto``; None: ``RAY_ADDRESS`` if set, else a cluster of this
        machine that lives as long as the program.
    needs
        What one worker takes of the cluster.
    patience_s
        Seconds a cluster may have no room for a single worker before the program gives up.
    """

    kind: Literal["ray", "serial"] = "ray"
    num_workers: int | None = None
    address: str | None = None
    needs: WorkerNeeds = field(default_factory=WorkerNeeds)
    patience_s: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"executor.kind: unknown kind {self.kind!r}; {nearest(str(self.kind), KINDS)}")
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"executor.num_workers: found {self.num_workers}; allowed: 1 or more, or null for all")
        if not self.patience_s >= 0:
            raise ConfigError(f"executor.patience_s: found {self.patience_s}; allowed: 0 or more")


def executor_for(device: DeviceName, executor: ExecutorSettings) -> ExecutorSettings:
    """Return the executor whose workers have a GPU each where ``device`` is one and no share of one is asked for."""
    if device != "cuda" or executor.needs.num_gpus > 0:
        return executor
    return replace(executor, needs=replace(executor.needs, num_gpus=1.0))


_connections: list[ExitStack] = []
"""Of the enclosing ``cluster`` blocks: empty stacks until something inside needs Ray."""


@contextmanager
def cluster(settings: ExecutorSettings, *, when_needed: bool = False) -> Iterator[None]:
    """Hold ONE connection to Ray for every executor and worker group opened inside (no-op for ``serial``).

    ``when_needed`` connects only when the first of them is opened: a command with nothing to compute starts no Ray.
    Nested use joins the connection that is there. Raises ``ClusterError`` if no cluster answers.
    """
    with ExitStack() as connection:
        if settings.kind == "ray":
            _connections.append(connection)
            connection.callback(_connections.remove, connection)
            if not when_needed:
                connection.enter_context(connect(num_workers=settings.num_workers, address=settings.address))
        yield


@contextmanager
def _connected(settings: ExecutorSettings) -> Iterator[None]:
    """Connect for the outermost ``cluster`` block, else for this block; raises ``ClusterError`` if none answers."""
    with ExitStack() as own:
        holder = _connections[0] if _connections else own
        holder.enter_context(connect(num_workers=settings.num_workers, address=settings.address))
        yield


@contextmanager
def open_executor(settings: ExecutorSettings) -> Iterator[Executor]:
    """Open an executor for independent calls; joins the enclosing ``cluster`` if there is one."""
    if settings.kind == "serial":
        with SerialExecutor(memory_bytes=settings.needs.memory_bytes) as serial:
            yield serial
        return
    limits = {"max_workers": settings.num_workers, "patience_s": settings.patience_s}
    with _connected(settings), RayTaskExecutor(needs=settings.needs, **limits) as executor:  # type: ignore[arg-type]
        yield executor


@contextmanager
def open_worker_group(
    settings: ExecutorSettings, factory: Callable[..., Any], *args: Any, slots_per_call: int | None = None
) -> Iterator[WorkerGroup]:
    """Open stateful workers, each built by ``factory(*args)``; joins the enclosing ``cluster`` if there is one."""
    if settings.kind == "serial":
        with SerialWorkerGroup(factory, *args) as serial:
            yield serial
        return
    with (
        _connected(settings),
        RayActorGroup(
            factory, *args, num_workers=settings.num_workers, slots_per_call=slots_per_call, needs=settings.needs
        ) as group,
    ):
        yield group
