"""Where calls run: settings, and the doors to executors and worker groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from tinytrain_dist.execution.executor import Executor
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
        CPUs to use at most; None: all of the machine, or of the cluster that is joined.
    address
        ``host:port`` of a Ray cluster, or ``auto``; None: ``RAY_ADDRESS`` if set, else a cluster of this
        machine that lives as long as the program.
    """

    kind: Literal["ray", "serial"] = "ray"
    num_workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"executor.kind: unknown kind {self.kind!r}; {nearest(str(self.kind), KINDS)}")
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"executor.num_workers: found {self.num_workers}; allowed: 1 or more, or null for all")


@contextmanager
def cluster(settings: ExecutorSettings) -> Iterator[None]:
    """Hold ONE connection to Ray for every executor and worker group opened inside (no-op for ``serial``).

    Nested use joins the connection that is there. Raises ``ClusterError`` if no cluster answers.
    """
    if settings.kind == "serial":
        yield
        return
    with connect(num_workers=settings.num_workers, address=settings.address):
        yield


@contextmanager
def open_executor(settings: ExecutorSettings) -> Iterator[Executor]:
    """Open an executor for independent calls; joins the enclosing ``cluster`` if there is one."""
    if settings.kind == "serial":
        with SerialExecutor() as serial:
            yield serial
        return
    with cluster(settings), RayTaskExecutor(max_workers=settings.num_workers) as executor:
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
        cluster(settings),
        RayActorGroup(factory, *args, num_workers=settings.num_workers, slots_per_call=slots_per_call) as group,
    ):
        yield group
