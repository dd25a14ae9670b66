"""``search-static``: a static scheme of sparse_update for any backbone and budget, found on meta-validation tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.costs.counters import paper_memory
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.costs.schemes import (
    Evidence,
    Scheme,
    SchemeFile,
    read_scheme,
    scheme_plan,
    shipped_schemes,
    write_scheme,
)
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec, check_episodes
from tinytrain_dist.execution.settings import ExecutorSettings, open_executor
from tinytrain_dist.foundation.errors import ConfigError, TinyTrainError
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.layer_graph import RESOLUTION_DEFAULT
from tinytrain_dist.graphs.update_plan import updated_weights
from tinytrain_dist.simulation.plan_run import load_weights
from tinytrain_dist.simulation.request import UnitSetup
from tinytrain_dist.simulation.scheme_scores import SchemeScores, ScoreFile
from tinytrain_dist.simulation.scheme_search import Evolution, SearchSpace, evolve
from tinytrain_dist.simulation.settings import SimulationSettings, tuning_values

_log = logger(__name__)
SOURCE_DOMAINS = ("emoji", "icons")
NUM_FINALISTS = 4
NUM_SETS = 3
"""Of tasks, none in two of them: evolution, validation, held out."""
RESULT_VERSION = 1
"""Raised whenever the code changes what a search finds."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What is searched, and on which tasks.

    Attributes
    ----------
    memory_bytes, compute_share
        Budget: the paper's counter at fp32, batch 1, Adam; and a share of FullTrain's backward MACs. Both are
        counted at ``budget_resolution`` pixels.
    weights
        Checkpoint file; ``None``: random weights of ``evolution.seed``.
    num_tasks
        Tasks of the evolution, the ``domains`` in turn. One of the finalists is chosen on as many others (validation),
        and how good they are is said on as many again that choose nothing (held out).
    resolution
        Pixels of the tasks' images.
    """

    backbone: str
    memory_bytes: int
    compute_share: float = 0.15
    weights: Path | None = None
    evolution: Evolution
    num_tasks: int = 8
    domains: tuple[str, ...] = SOURCE_DOMAINS
    episodes: EpisodeSettings = field(default_factory=EpisodeSettings)
    resolution: int = 84
    budget_resolution: int = RESOLUTION_DEFAULT
    finetune: FineTuneSettings = field(default_factory=lambda: FineTuneSettings(mode="fast"))
    data_roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.compute_share <= 1:
            raise ConfigError(f"--budget-compute-share: found {self.compute_share}; allowed: above 0, up to 1")
        if self.num_tasks < 1:
            raise ConfigError(f"--tasks: found {self.num_tasks}; allowed: 1 or more")
        if self.finetune.iterations < 1:
            raise ConfigError(f"--iterations: found {self.finetune.iterations}; allowed: 1 or more")

    @property
    def space(self) -> SearchSpace:
        """The schemes the budget holds."""
        graph = layer_graph(self.backbone, self.budget_resolution)
        macs = max(1, int(self.compute_share * 2 * graph.forward_macs))
        return SearchSpace(graph, Budget(memory_bytes=self.memory_bytes, backward_macs=macs))


def search_static(
    settings: SearchSettings, *, out: Path, executor: ExecutorSettings | None = None, command: str = ""
) -> SchemeFile:
    """Find a scheme, write it to ``out`` and return it; scores are kept beside it, so the same command resumes.

    Raises
    ------
    ConfigError
        The budget holds no layer, or ``out`` is something else than a scheme of this backbone.
    RunLockedError
        The scores beside ``out`` belong to another search.
    """
    space = settings.space
    _check_out(out, settings.backbone)
    _log.info("%d layers of %s fit the budget", len(space.layers), settings.backbone)
    specs = _specs(settings)
    weights, checkpoint, initialization, scale = load_weights(
        SimulationSettings(
            domains=settings.domains, devices=("none",), backbone=settings.backbone, weights=settings.weights,
            resolution=settings.resolution, seed=settings.evolution.seed,
        )
    )  # fmt: skip
    setup = UnitSetup(
        checkpoint=checkpoint, initialization=initialization, backbone=settings.backbone, scale=scale,
        resolution=settings.resolution, finetune=settings.finetune, selection=SelectionSettings(), profiles=(),
        data_roots=settings.data_roots, run_folder="",
    )  # fmt: skip
    scores = ScoreFile(state_path(out), _identity(settings, checkpoint, specs)).open()
    with open_executor(executor or ExecutorSettings()) as workers:
        shared = SchemeScores(workers, workers.share(weights), workers.share(setup), scores)
        file = _search(settings, space, shared, specs, checkpoint=checkpoint, command=command)
    write_scheme(out, file)
    return file


def state_path(out: Path) -> Path:
    """Return the file with the scores of the search that writes ``out``."""
    return out.with_name(f"{out.name}.scores.json")


def _check_out(out: Path, backbone: str) -> None:
    """Raise ``ConfigError`` where writing ``out`` would overwrite anything but an earlier scheme of the backbone."""
    if not out.exists():
        return
    try:
        if out.is_file() and read_scheme(out).backbone == backbone:
            return
    except TinyTrainError:
        pass
    raise ConfigError(f"--out: found {str(out)!r}, which is no static scheme of {backbone}; allowed: a new file")


def _specs(settings: SearchSettings) -> list[EpisodeSpec]:
    """Return the tasks of the evolution, then as many that choose among the finalists, then as many held out."""
    domains = [open_domain(name, roots=settings.data_roots) for name in settings.domains]
    for domain in domains:
        check_episodes(domain, split="valid", settings=settings.episodes)
    return [
        EpisodeSpec.of(
            domains[number % len(domains)], split="valid", settings=settings.episodes, seed=settings.evolution.seed,
            index=number // len(domains),
        )
        for number in range(NUM_SETS * settings.num_tasks)
    ]  # fmt: skip


def _identity(settings: SearchSettings, checkpoint: str, specs: Sequence[EpisodeSpec]) -> dict[str, Any]:
    """Return what a score depends on: budget and evolution only decide which scores are asked for."""
    return {
        "backbone": settings.backbone,
        "checkpoint": checkpoint,
        "resolution": settings.resolution,
        "seed": settings.evolution.seed,
        "finetune": content_hash(tuning_values(settings.finetune)),
        "episodes": content_hash(settings.episodes),
        "domain_hashes": content_hash(sorted({(spec.domain, spec.domain_hash) for spec in specs})),
        "numerics": settings.finetune.numerics,
        "result_version": RESULT_VERSION,
    }


def _search(
    settings: SearchSettings,
    space: SearchSpace,
    shared: SchemeScores,
    specs: list[EpisodeSpec],
    *,
    checkpoint: str,
    command: str,
) -> SchemeFile:
    size = settings.num_tasks
    seen, validation, held_out = (specs[i * size : (i + 1) * size] for i in range(NUM_SETS))
    published = _published(settings.backbone)

    def watch(generation: int, best: float) -> None:
        _log.info("generation %d of %d: best %.1f %%", generation + 1, settings.evolution.generations, 100 * best)

    ranked = evolve(space, lambda s: shared.mean(s, seen), settings.evolution, first=published.values(), watch=watch)
    best = [scheme for scheme, _ in ranked[:NUM_FINALISTS]]
    nothing = Scheme(backbone=space.graph.name, input_shares=(), num_last_biases=0)
    names = {scheme.hash: name for name, scheme in published.items()}
    finalists = list({s.hash: s for s in [*best, *published.values()]}.values())
    rows = [nothing, *finalists]
    columns = [shared.mean(rows, tasks) for tasks in (seen, validation, held_out)]
    table = {scheme.hash: list(scores) for scheme, *scores in zip(rows, *columns, strict=True)}
    winner = max(best, key=lambda scheme: table[scheme.hash][1])  # the first, better in the evolution, of equals
    before, after = table.pop(nothing.hash), table.pop(winner.hash)
    evidence = Evidence(
        command=command,
        seed=settings.evolution.seed,
        checkpoint=checkpoint,
        domains=list(settings.domains),
        num_tasks=size,
        generations=settings.evolution.generations,
        population=settings.evolution.population,
        num_schemes=len(ranked),
        budget_memory_bytes=space.budget.memory_bytes,
        budget_backward_macs=space.budget.backward_macs,
        budget_resolution=settings.budget_resolution,
        accuracy_before=before[0],
        accuracy=after[0],
        validation_accuracy_before=before[1],
        validation_accuracy=after[1],
        held_out_accuracy_before=before[2],
        held_out_accuracy=after[2],
        others={names.get(key, key): scores for key, scores in table.items()},
    )
    return _file(space, winner, evidence)


def _published(backbone: str) -> dict[str, Scheme]:
    """Return the package's schemes that no search found: the command of one that did would else not find it again."""
    return {name: file.scheme for name, file in shipped_schemes(backbone).items() if file.search is None}


def _file(space: SearchSpace, scheme: Scheme, evidence: Evidence) -> SchemeFile:
    plan = scheme_plan(space.graph, scheme)
    return SchemeFile(
        format=1,
        backbone=space.graph.name,
        source="tinytrain search-static",
        note="Accuracies are those of 'domains', split valid: the evolution ranked by its own tasks, 'validation' "
        "tasks chose among its best, 'held_out' tasks chose nothing.",
        input_shares=dict(scheme.input_shares),
        num_last_biases=scheme.num_last_biases,
        updated_weights=updated_weights(plan, space.graph),
        backward_macs=plan_macs(space.graph, plan, chain="everything").backward,
        memory_bytes=paper_memory(space.graph, plan).total_bytes,
        search=evidence,
    )
