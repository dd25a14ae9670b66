"""What one worker takes of a cluster, and how many such workers the nodes hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tinytrain_dist.foundation.errors import ConfigError

DeviceName = Literal["cpu", "cuda"]
"""Where a worker computes: ``cuda`` is the GPU that its process sees first."""
_TINY = 1e-9  # ten workers of 0.1 CPU fit one CPU, whatever the floating point says


@dataclass(frozen=True, kw_only=True)
class WorkerNeeds:
    """Resources of one worker; fractions share a CPU or GPU.

    Attributes
    ----------
    memory_bytes
        Memory a worker may take, None: unlimited. Counted by the scheduler and watched in the worker.
    resources
        The cluster's own kinds of resources, (name, amount) each.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: int | None = None
    resources: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.num_cpus < math.inf:
            raise ConfigError(f"executor.num_cpus: found {self.num_cpus}; allowed: above 0, such as 1 or 0.5")
        if not 0 <= self.num_gpus < math.inf:
            raise ConfigError(f"executor.num_gpus: found {self.num_gpus}; allowed: 0 or more, such as 0.25")
        if self.memory_bytes is not None and self.memory_bytes <= 0:
            raise ConfigError(f"executor.memory_bytes: found {self.memory_bytes}; allowed: above 0, or null")
        for name, amount in self.resources:
            if name in ("CPU", "GPU", "memory") or not 0 < amount < math.inf:
                raise ConfigError(
                    f"executor.resources: found {name}: {amount}; allowed: an amount above 0 of a resource that the "
                    f"cluster's nodes offer; CPU, GPU and memory have settings of their own"
                )

    @property
    def amounts(self) -> dict[str, float]:
        """Return what is needed, by the scheduler's name."""
        found = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": float(self.memory_bytes or 0)}
        return {name: amount for name, amount in (found | dict(self.resources)).items() if amount > 0}

    @property
    def options(self) -> dict[str, Any]:
        """Return what is needed, as the options of a remote function or actor."""
        options: dict[str, Any] = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        if self.memory_bytes is not None:
            options["memory"] = self.memory_bytes
        return options | ({"resources": dict(self.resources)} if self.resources else {})

    def fitting(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """Return how many workers the nodes hold; a worker never spans two."""
        return sum(
            int(min(node.get(name, 0.0) / amount for name, amount in self.amounts.items()) + _TINY) for node in nodes
        )

    def lacking(self, nodes: Iterable[Mapping[str, float]]) -> str:
        """Say in words what one worker needs and what the largest node of each resource offers."""
        offered = list(nodes)
        words = [
            f"{name}: needed {amount:g}, available {max((node.get(name, 0.0) for node in offered), default=0.0):g}"
            for name, amount in self.amounts.items()
        ]
        return f"{'; '.join(words)} on the best of {len(offered)} nodes"
