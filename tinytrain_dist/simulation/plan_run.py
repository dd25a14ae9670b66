"""From settings to work: load what the run depends on, name its identity, list the cells that are missing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.adaptation.criteria import CRITERIA
from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.adaptation.numerics import check_machine
from tinytrain_dist.backbones.checkpoint import checkpoint_hash, load_checkpoint
from tinytrain_dist.backbones.flat_state import state_to_flat
from tinytrain_dist.backbones.head import SCALE_DEFAULT
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.schemes import scheme_plan
from tinytrain_dist.data.domain import Domain, open_domain
from tinytrain_dist.data.episodes import EpisodeSettings, check_episodes
from tinytrain_dist.foundation.errors import ConfigError, DataError, nearest
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.simulation.grid import Grid
from tinytrain_dist.simulation.rates import Group
from tinytrain_dist.simulation.request import UnitSetup
from tinytrain_dist.simulation.settings import SimulationSettings, identity_of

MACS_PER_SECOND = 8e9
"""Rough rate of one server core: only decides how tasks are cut into chunks."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Everything a run needs before its first task: checked, loaded, named."""

    settings: SimulationSettings
    setup: UnitSetup
    weights: NDArray[np.float32]
    domains: tuple[Domain, ...]
    identity: dict[str, Any]

    @property
    def grid(self) -> Grid:
        """Every unit of the run."""
        settings = self.settings
        cells = tuple((method, settings.devices) for method in settings.methods)
        return Grid(domains=tuple(d.name for d in self.domains), num_tasks=settings.num_tasks, cells=cells)

    @property
    def profile_hashes(self) -> dict[str, str]:
        """Content hash of every device profile, by name."""
        return {profile.name: profile.hash for profile in self.setup.profiles}

    def unit_seconds(self, group: Group) -> float:
        """Return a rough prediction of one task's work on the group's cells, from MACs."""
        graph = layer_graph(self.settings.backbone, self.settings.resolution)
        passes = 2 * expected_support(self.settings.episodes) * self.settings.finetune.iterations
        trained = sum(
            (3.0 if METHODS[m].is_full else 1.5) * (min(len(d), 4) if METHODS[m].has_budget else 1)
            for m, d in group[1]
            if METHODS[m].uses_network and METHODS[m].tuner != "none"
        )
        return 0.05 + passes * trained * graph.forward_macs / MACS_PER_SECOND


def expected_support(episodes: EpisodeSettings) -> int:
    """Return about how many support images a task has (Meta-Dataset's mean is 340, TinyTrain, Table 5)."""
    return 340 if episodes.sampler == "meta_dataset" else episodes.way * episodes.shot


def plan_run(settings: SimulationSettings) -> RunPlan:
    """Check and load everything; raises the error of the first thing that is wrong, before anything runs."""
    if settings.finetune.device == "cpu":  # a GPU need be only where the workers are: each of them looks for itself
        check_machine(settings.finetune)
    graph = layer_graph(settings.backbone, settings.resolution)
    for method in settings.methods:
        METHODS[method].check(graph, settings.selection)
    CRITERIA[settings.selection.criterion]
    _check_selection(settings)
    profiles = tuple(load_profile(name, dirs=settings.device_dirs) for name in settings.devices)
    domains = _open_domains(settings)
    weights, checkpoint, initialization, scale = load_weights(settings)
    setup = UnitSetup(
        checkpoint=checkpoint,
        initialization=initialization,
        backbone=settings.backbone,
        resolution=settings.resolution,
        scale=scale,
        finetune=settings.finetune,
        selection=settings.selection,
        profiles=profiles,
        data_roots=settings.data_roots,
        run_folder="",
        split=settings.split,
        episodes=settings.episodes,
        seed=settings.seed,
        domain_hashes=tuple((d.name, d.content_hash) for d in domains),
    )
    identity = identity_of(
        settings, checkpoint=checkpoint, initialization=initialization, domain_hashes=dict(setup.domain_hashes)
    )
    setup = replace(setup, run_identity=content_hash({k: v for k, v in identity.items() if k != "domain_hashes"}))
    return RunPlan(settings=settings, setup=setup, weights=weights, domains=domains, identity=identity)


def _check_selection(settings: SimulationSettings) -> None:
    graph = layer_graph(settings.backbone, settings.resolution)
    found, allowed = settings.selection.inspect_blocks, graph.num_blocks
    for device, _ in settings.selection.device_ratios:
        if device not in settings.devices:
            raise ConfigError(
                f"selection.device_ratios: unknown device {device!r}; {nearest(device, settings.devices)}"
            )
    if settings.selection.scheme is not None:
        scheme_plan(graph, settings.selection.scheme)
    if found > allowed:
        raise ConfigError(f"selection.inspect_blocks: found {found}; allowed: 1 to {allowed} for {settings.backbone}")


def _open_domains(settings: SimulationSettings) -> tuple[Domain, ...]:
    domains = tuple(open_domain(name, roots=settings.data_roots) for name in settings.domains)
    names = [domain.name for domain in domains]
    if len(set(names)) != len(names):
        raise DataError(f"domains: two of them are called the same: {names}")
    for domain in domains:
        check_episodes(domain, split=settings.split, settings=settings.episodes)
    return domains


def load_weights(settings: SimulationSettings) -> tuple[NDArray[np.float32], str, str, float]:
    """Return flat weights, their content hash, the kind of initialization and the head's scale."""
    if settings.weights is None:
        backbone = build_backbone(settings.backbone, resolution=settings.resolution, seed=settings.seed)
        flat = state_to_flat(backbone)
        return flat, checkpoint_hash(backbone.graph, flat), "random", SCALE_DEFAULT
    checkpoint = load_checkpoint(settings.weights, backbone=settings.backbone)
    scale = SCALE_DEFAULT if checkpoint.head_scale is None else checkpoint.head_scale
    return checkpoint.state, checkpoint.hash, checkpoint.card.initialization, scale
