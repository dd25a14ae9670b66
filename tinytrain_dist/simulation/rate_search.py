"""``finetune.learning_rate: auto``: the best rate of a grid on meta-validation classes, never on a target domain.

Each rate is a simulation of its own beside the run it is for: resumable, on the same executors, and shared by
every run with the same checkpoint, methods and settings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.adaptation.settings import check_rate
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.simulation.engine import simulate
from tinytrain_dist.simulation.settings import SimulationSettings

FOLDER = "learning_rates"


@dataclass(frozen=True, kw_only=True)
class RateGrid:
    """What is tried.

    Attributes
    ----------
    domains
        Source domains; tasks come from their classes of split ``valid``. One that is tested is left out.
    num_tasks
        Tasks of each domain.
    """

    rates: tuple[float, ...]
    num_tasks: int
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        key = "rate_search.rates"
        for rate in self.rates:
            check_rate(rate, key=key)
        if not self.rates or len(set(self.rates)) != len(self.rates):
            raise ConfigError(f"{key}: found {list(self.rates)}; allowed: at least one rate, none twice")
        if self.num_tasks < 1:
            raise ConfigError(f"rate_search.num_tasks: found {self.num_tasks}; allowed: 1 or more")

    def without(self, tested: Collection[str]) -> RateGrid:
        """Return the grid on those of its domains that are not ``tested``: no rate is chosen on a target domain."""
        left = tuple(name for name in self.domains if name not in tested)
        if not left:
            raise ConfigError(
                f"finetune.learning_rate: auto would choose the rate on {sorted(self.domains)}, which data.domains "
                f"tests; name others in meta_train.domains, or set a rate"
            )
        return replace(self, domains=left)

    def check(self, settings: SimulationSettings) -> None:
        """Raise ``ConfigError`` where the rate could only be chosen on what ``settings`` tests, or none is needed."""
        self.without(settings.domains)
        if not trained_methods(settings):
            raise ConfigError(f"finetune.learning_rate: auto, but none of {list(settings.methods)} trains; set a rate")

    def trial(self, settings: SimulationSettings, *, rate: float) -> SimulationSettings:
        """Return the simulation that scores ``rate``: the same methods and devices on source domains not tested."""
        return replace(
            settings, domains=self.without(settings.domains).domains, split="valid", num_tasks=self.num_tasks,
            methods=trained_methods(settings), finetune=replace(settings.finetune, learning_rate=rate, curve_every=0),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RateChoice:
    """The chosen rate and what it was chosen from.

    Attributes
    ----------
    table
        Method -> rate -> mean query accuracy after tuning (0 to 1); a task that diverged counts as 0.
    scores
        Rate -> mean over the methods: the largest is chosen, of equals the smallest rate.
    """

    rate: float
    grid: RateGrid
    table: Mapping[str, Mapping[str, float]]
    scores: Mapping[str, float]
    runs: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        """Return the choice as JSON values, for ``run.json``."""
        return {"split": "valid", **asdict(self)}


def search_rate(
    settings: SimulationSettings, grid: RateGrid, *, root: Path, executor: ExecutorSettings, command: str = ""
) -> RateChoice:
    """Return the best rate of ``grid`` for the methods of ``settings``; runs lie in ``root/learning_rates``."""
    grid.check(settings)
    grid = grid.without(settings.domains)
    methods = trained_methods(settings)
    accuracies: dict[str, dict[str, float]] = {method: {} for method in methods}
    runs: dict[str, str] = {}
    for rate in grid.rates:
        trial = grid.trial(settings, rate=rate)
        result = simulate(trial, root=root / FOLDER, executor=executor, config={"command": command})
        runs[_word(rate)] = result.folder.name
        for method, accuracy in _accuracies(result.folder, trial).items():
            accuracies[method][_word(rate)] = accuracy
    means = {_word(r): sum(row[_word(r)] for row in accuracies.values()) / len(methods) for r in grid.rates}
    best = min(grid.rates, key=lambda rate: (-means[_word(rate)], rate))
    return RateChoice(rate=best, grid=grid, table=accuracies, scores=means, runs=runs)


def trained_methods(settings: SimulationSettings) -> tuple[str, ...]:
    """Return the methods whose outcome depends on the learning rate."""
    chosen = settings.finetune, settings.selection
    return tuple(name for name in settings.methods if "learning_rate" in METHODS[name].variant_settings(*chosen))


def _word(rate: float) -> str:
    return f"{rate:g}"


def _accuracies(folder: Path, trial: SimulationSettings) -> dict[str, float]:
    """Return each method's mean accuracy over the trial's tasks and devices."""
    columns = ["method", "domain", "task_index", "device", "status", "message", "accuracy_after"]
    found: dict[str, list[float]] = {method: [] for method in trial.methods}
    for row in pq.read_table(folder / "results", columns=columns).to_pylist():
        if row["domain"] not in trial.domains or row["task_index"] >= trial.num_tasks:
            continue  # a larger search ran here before
        if row["device"] not in trial.devices or row["method"] not in found:
            continue
        if row["status"] not in ("ok", "diverged"):
            raise ConfigError(f"{folder}: no learning rate can be chosen, a task failed: {row['message']}")
        found[row["method"]].append(row["accuracy_after"] or 0.0)
    return {method: sum(values) / len(values) for method, values in found.items()}
