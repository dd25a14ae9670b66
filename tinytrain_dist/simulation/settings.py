"""What a simulation is asked to do: identity (what a number depends on) and grid (which numbers)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.costs.schemes import default_scheme
from tinytrain_dist.data.domain import SplitName
from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.foundation.hashing import canonical_json, content_hash
from tinytrain_dist.simulation.schema import RESULT_VERSION

MAX_WINDOW = 16.0
Initialization = Literal["random", "pretrained", "meta_trained"]


@dataclass(frozen=True, kw_only=True)
class DispatchSettings:
    """How work is cut and how much trouble is tolerated; never changes a result.

    Attributes
    ----------
    chunk_seconds
        Predicted work per remote call, in seconds.
    max_attempts
        Attempts at one task whose worker dies before it becomes a row ``crashed``.
    deadline_s
        Seconds one task may take; tasks that a GPU tunes together may take so many times as long.
    max_failed_share
        Share of finished tasks that may fail before the run stops early.
    window_per_worker
        Chunks handed out per worker of the cluster: one computes, the rest wait beside it.
    speculate
        At the end idle workers compute overdue chunks a second time; the first result counts.
    retry_failed
        Tasks that crashed, timed out or raised in an earlier command are computed again.
    """

    chunk_seconds: float = 3.0
    max_attempts: int = 3
    deadline_s: float = 900.0
    max_failed_share: float = 0.5
    window_per_worker: float = 2.5
    speculate: bool = True
    retry_failed: bool = False

    def __post_init__(self) -> None:
        for key in ("chunk_seconds", "max_attempts", "deadline_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"dispatch.{key}: found {getattr(self, key)}; allowed: above 0")
        if not 1 <= self.window_per_worker <= MAX_WINDOW:
            found = self.window_per_worker
            raise ConfigError(f"dispatch.window_per_worker: found {found}; allowed: 1 to {MAX_WINDOW:g}")
        if not 0 <= self.max_failed_share <= 1:
            raise ConfigError(f"dispatch.max_failed_share: found {self.max_failed_share}; allowed: 0 to 1")


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """One simulation.

    Attributes
    ----------
    domains, split, num_tasks
        Target tasks: ``num_tasks`` of each domain, drawn from the classes of ``split``.
    resolution
        Pixels (height = width) of the network's input, for accuracy and price alike.
    weights
        Checkpoint file; ``None`` draws random weights from ``seed``.
    devices
        Names of device profiles; ``device_dirs`` are searched besides the shipped ones.
    """

    domains: tuple[str, ...]
    split: SplitName = "test"
    num_tasks: int = 8
    episodes: EpisodeSettings = field(default_factory=lambda: EpisodeSettings(sampler="fixed"))
    seed: int = 0
    resolution: int = 84
    backbone: str = "mcunet"
    weights: Path | None = None
    methods: tuple[str, ...] = ("raw_pixels", "none", "last_layer", "tinytrain")
    devices: tuple[str, ...] = ()
    data_roots: tuple[str, ...] = ()
    device_dirs: tuple[str, ...] = ()
    finetune: FineTuneSettings = field(default_factory=FineTuneSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)

    def __post_init__(self) -> None:
        for key in ("domains", "methods", "devices"):
            values = getattr(self, key)
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"{key}: found {list(values)}; allowed: at least one name, none twice")
        if self.num_tasks < 1:
            raise ConfigError(f"episodes.num_tasks: found {self.num_tasks}; allowed: 1 or more")


def identity_of(
    settings: SimulationSettings, *, checkpoint: str, initialization: str, domain_hashes: dict[str, str]
) -> dict[str, Any]:
    """Return the keys that decide every number: two requests with equal identity share one run.

    Not among them: PyTorch's version and the kind of CPU, on which only last digits depend. ``run.json`` says under
    ``computed_on`` which ones made the rows, and a command that adds another one says so.
    """
    shipped = default_scheme(settings.backbone) if settings.selection.scheme is None else None
    identity: dict[str, Any] = {
        "seed": settings.seed,
        "split": settings.split,
        "episodes": asdict(settings.episodes),
        "resolution": settings.resolution,
        "backbone": settings.backbone,
        "checkpoint": checkpoint,
        "initialization": initialization,
        "default_scheme": None if shipped is None else shipped.hash,  # its content may change between releases
        "finetune": {k: v for k, v in tuning_values(settings.finetune).items() if k not in CHANGES_NO_NUMBER},
        "selection": asdict(settings.selection),
        "numerics": settings.finetune.numerics,
        "result_version": RESULT_VERSION,
        "domain_hashes": domain_hashes,
    }
    plain: dict[str, Any] = json.loads(canonical_json(identity))  # as it will be read back: lists for tuples
    return plain


def tuning_values(finetune: FineTuneSettings) -> dict[str, Any]:
    """Return the settings of the fine-tuning but for its arithmetic, which stands beside them in an identity.

    The device came later: where it is the CPU, runs are what they were without it, and it is not named. How many tasks
    share a step is like the number of workers: no part of what a run is.
    """
    left_out = {"numerics", "tasks_together"} | ({"device"} if finetune.device == "cpu" else set())
    return {key: value for key, value in asdict(finetune).items() if key not in left_out}


def run_id_of(identity: dict[str, Any]) -> str:
    """Return the run id derived from the identity; the data of single domains is checked, not named in it."""
    return "simulate-" + content_hash({k: v for k, v in identity.items() if k != "domain_hashes"}, length=10)


CHANGES_NO_NUMBER = frozenset({"curve_every"})
"""Settings of the fine-tuning that say what is watched, not what is done."""
