"""Sections of a ``JobConfig`` -> the frozen settings of each floor, checked once before anything starts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from tinytrain_dist.adaptation.numerics import best_numerics
from tinytrain_dist.adaptation.settings import FineTuneSettings, Numerics, SelectionSettings, check_rate
from tinytrain_dist.costs.schemes import find_scheme
from tinytrain_dist.data.domain import SplitName
from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.execution.needs import WorkerNeeds
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.metatraining.pretrain_settings import PretrainSettings
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.reporting.wandb_session import MODES, Mode
from tinytrain_dist.simulation.rate_search import RateGrid
from tinytrain_dist.simulation.settings import DispatchSettings, SimulationSettings
from tinytrain_dist.verbs.job_config import ExecutorConfig, JobConfig, TrainingConfig

AUTO = "auto"


def executor_settings(config: ExecutorConfig) -> ExecutorSettings:
    """Return where calls run."""
    resources = config.resources or {}
    if not isinstance(resources, dict) or not all(isinstance(v, int | float) for v in resources.values()):
        raise ConfigError(f"executor.resources: found {resources!r}; allowed: {{NAME:AMOUNT,...}}, or null")
    needs = WorkerNeeds(
        num_cpus=config.num_cpus, num_gpus=config.num_gpus, memory_bytes=config.memory_bytes,
        resources=tuple(sorted((str(name), float(amount)) for name, amount in resources.items())),
    )  # fmt: skip
    return ExecutorSettings(
        kind=config.kind,  # type: ignore[arg-type]
        num_workers=config.num_workers,
        address=config.address,
        needs=needs,
        patience_s=config.patience_s,
    )


def simulation_settings(config: JobConfig, *, weights: Path | None) -> SimulationSettings:
    """Return the simulation a configuration asks for, on the given checkpoint (``None``: random weights)."""
    episodes = asdict(config.episodes)
    num_tasks = episodes.pop("num_tasks")
    if config.data.split not in get_args(SplitName):
        raise ConfigError(
            f"data.split: unknown {config.data.split!r}; {nearest(config.data.split, get_args(SplitName))}"
        )
    return SimulationSettings(
        domains=tuple(config.data.domains),
        split=config.data.split,  # type: ignore[arg-type]
        num_tasks=num_tasks,
        episodes=EpisodeSettings(**episodes),
        seed=config.seed,
        resolution=config.backbone.resolution,
        backbone=config.backbone.name,
        weights=weights,
        methods=tuple(config.methods),
        devices=tuple(config.devices.names),
        data_roots=tuple(config.data.roots),
        device_dirs=tuple(config.devices.dirs),
        finetune=FineTuneSettings(
            **asdict(config.finetune) | {"learning_rate": _rate(config), "numerics": _numerics(config)}
        ),
        selection=selection_settings(config),
        dispatch=DispatchSettings(**asdict(config.dispatch)),
    )


def selection_settings(config: JobConfig) -> SelectionSettings:
    """Return how layers and channels are chosen; a static scheme named there is read here."""
    values = asdict(config.selection) | asdict(config.budget)
    ratios = config.selection.device_ratios or {}
    if not isinstance(ratios, dict):
        raise ConfigError(f"selection.device_ratios: found {ratios!r}; allowed: {{DEVICE:RATIO,...}}, or null")
    values["device_ratios"] = tuple(sorted(ratios.items()))
    if config.selection.scheme is not None:
        values["scheme"] = find_scheme(config.selection.scheme).scheme
    return SelectionSettings(**values)


def rate_grid(config: JobConfig) -> RateGrid | None:
    """Return the learning rates to choose from, ``None`` where the rate is given."""
    if config.finetune.learning_rate != AUTO:
        return None
    search = config.rate_search
    return RateGrid(
        rates=tuple(search.rates), num_tasks=search.num_tasks, domains=tuple(config.meta_train.domains)
    )  # fmt: skip


def _rate(config: JobConfig) -> float:
    """Return the given rate; in place of ``auto``, until it is decided, the default."""
    rate = config.finetune.learning_rate
    if rate == AUTO:
        return FineTuneSettings().learning_rate
    check_rate(rate, allowed=", or auto")
    return float(rate)


def _numerics(config: JobConfig) -> str:
    """Return the given arithmetic; in place of ``auto`` what is best on this machine: one answer for the whole run."""
    found = config.finetune.numerics
    if found not in (AUTO, *get_args(Numerics)):
        raise ConfigError(f"finetune.numerics: found {found!r}; allowed: {AUTO}, {', '.join(get_args(Numerics))}")
    if found != AUTO:
        return found
    if config.finetune.mode != "fast":
        return "fp32"
    return best_numerics("cuda" if config.finetune.device == "cuda" else "cpu")


def meta_train_settings(config: JobConfig) -> MetaTrainSettings:
    """Return the meta-training a configuration asks for."""
    values = _stage_values("meta_train", config.meta_train)
    for key in ("way", "shot", "query"):
        values[key] = _range(f"meta_train.{key}", values[key])
    return MetaTrainSettings(
        backbone=config.backbone.name, resolution=config.backbone.resolution, seed=config.seed, **values
    )


def pretrain_settings(config: JobConfig) -> PretrainSettings:
    """Return the pre-training a configuration asks for."""
    return PretrainSettings(
        backbone=config.backbone.name,
        resolution=config.backbone.resolution,
        seed=config.seed,
        **_stage_values("pretrain", config.pretrain),
    )


def _stage_values(section: str, config: TrainingConfig) -> dict[str, Any]:
    """Return a training section's values with each domain beside its weight."""
    values = asdict(config)
    names, weights = values.pop("domains"), values.pop("domain_weights")
    weights = [1.0] * len(names) if weights is None else weights
    if len(weights) != len(names):
        raise ConfigError(f"{section}.domain_weights: found {len(weights)} numbers; allowed: one per domain ({names})")
    values["domains"] = tuple(zip(names, weights, strict=True))
    values["validation_domains"] = tuple(values["validation_domains"])
    return values


def _range(key: str, value: list[int]) -> tuple[int, int]:
    if len(value) != 2:
        raise ConfigError(f"{key}: found {value}; allowed: [smallest, largest]")
    return value[0], value[1]


def wandb_mode(config: JobConfig) -> Mode:
    """Return the W&B mode; raises ``ConfigError`` for an unknown one."""
    if config.wandb.mode not in MODES:
        raise ConfigError(f"wandb.mode: unknown {config.wandb.mode!r}; {nearest(config.wandb.mode, MODES)}")
    return config.wandb.mode
