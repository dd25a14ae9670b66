"""What became of a Ray task that gave no value: whose fault it was, and how a worker that hangs is ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tinytrain_dist.execution.executor import Failure, describe

_OF_THE_MACHINE = (
    "NodeDiedError", "LocalRayletDiedError", "RuntimeEnvSetupError", "OutOfDiskError", "ObjectLostError",
    "ObjectFetchTimedOutError", "OwnerDiedError", "ObjectStoreFullError", "TaskUnschedulableError", "RaySystemError",
    "RpcError", "AuthenticationError",
)  # fmt: skip
_OUR_CALLS = b"ray::run_call"


def failure_of(error: Exception, *, node_is_alive: bool) -> Failure:
    """Say what an exception that ``ray.get`` raised for a call means."""
    from ray import exceptions

    if isinstance(error, exceptions.RayTaskError):
        return Failure("error", describe(error.cause or error))
    if isinstance(error, tuple(getattr(exceptions, name) for name in _OF_THE_MACHINE)) or not node_is_alive:
        return Failure("lost", f"its machine failed ({describe(error)})")
    return Failure("crashed", f"the worker or its node died ({describe(error)})")


def is_alive(node_id: str | None) -> bool:
    """Say whether the cluster counts a node as alive (true of an unknown one)."""
    import ray

    return node_id is None or any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def whereabouts() -> tuple[str, int]:
    """Return this worker's node and process, which ``end_worker`` takes."""
    import ray

    return ray.get_runtime_context().get_node_id(), os.getpid()


def end_worker(node_id: str, pid: int) -> Any:
    """Kill a worker that did not react to being cancelled (it is stopped, say), from its own node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place)(_kill).remote(pid)


def _kill(pid: int) -> None:
    try:
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(_OUR_CALLS):
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return  # gone by now
