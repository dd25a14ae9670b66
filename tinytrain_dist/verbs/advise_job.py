"""The job behind ``tinytrain advise``: pictures -> domain -> the normal simulation -> its rows' advice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.costs.profile_files import load_profile, profile_names
from tinytrain_dist.data.episodes import draw_episode
from tinytrain_dist.execution.settings import cluster
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.foundation.paths import make_folder
from tinytrain_dist.foundation.progress import say
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.reporting.advice import Advice, Question, advise
from tinytrain_dist.reporting.advice_sizing import TaskSizes, size_tasks
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.page import write_page
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.simulation.engine import SimulationResult
from tinytrain_dist.simulation.plan_run import RunPlan, plan_run
from tinytrain_dist.verbs.advise_pictures import Pictures, import_pictures, read_pictures
from tinytrain_dist.verbs.advise_weights import Weights, find_weights
from tinytrain_dist.verbs.job_config import (
    BackboneConfig,
    DataConfig,
    DevicesConfig,
    EpisodesConfig,
    ExecutorConfig,
    FineTuneConfig,
    JobConfig,
    RunConfig,
    WandbConfig,
)
from tinytrain_dist.verbs.settings_of import executor_settings, simulation_settings
from tinytrain_dist.verbs.simulate import say_what_ran, simulated

DEFAULT_METHODS = ("raw_pixels", "none", "last_layer", "full_train", "tinytrain")
MAX_RESOLUTION = 84
"""Weights trained on larger pictures are used at this resolution unless another is asked for: speed."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for; None: chosen here."""

    images: Path
    run_root: Path
    devices: tuple[str, ...] | None
    methods: tuple[str, ...]
    limits: Limits
    tolerance_points: float
    weights: str | None
    backbone: str | None
    shot: int | None
    num_tasks: int | None
    iterations: int
    resolution: int | None
    executor: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The advice and where everything behind it lies."""

    advice: Advice
    weights: Weights
    pictures: Pictures
    run_folder: Path
    page: Path
    exit_code: ExitCode


def run_advice(request: Request) -> Outcome:
    """Import the pictures, simulate what is missing, and return the advice.

    Raises
    ------
    DataError
        Pictures or classes that cannot be used, or too few of them.
    ConfigError, ProfileError, CheckpointError
        Devices, methods, weights or numbers that are none.
    """
    devices = request.devices or default_devices()
    for device in devices:
        load_profile(device)
    for method in request.methods:
        METHODS[method]
    weights = find_weights(request.weights, backbone=request.backbone, run_root=request.run_root)
    resolution = request.resolution or min(weights.card.resolution, MAX_RESOLUTION)
    table = read_pictures(request.images)
    sizes = size_tasks(
        [int((table.labels == label).sum()) for label in range(len(table.class_names))],
        forward_macs=layer_graph(weights.backbone, resolution).forward_macs,
        iterations=request.iterations,
        shot=request.shot,
        num_tasks=request.num_tasks,
    )
    pictures = import_pictures(request.images, table, run_root=make_folder(request.run_root))
    for note in pictures.notes:
        say(f"warning: {note}")
    config = _config(request, weights, pictures, sizes, devices=devices, resolution=resolution)
    result, judged = _simulated(config, request)
    run = open_run(result.folder)
    question = Question(
        devices=devices, methods=tuple(config.methods), sizes=replace(sizes, judged=judged), limits=request.limits,
        tolerance_points=request.tolerance_points,
    )  # fmt: skip
    return Outcome(
        advice=advise(run, question), weights=weights, pictures=pictures, run_folder=result.folder,
        page=write_page(run), exit_code=result.exit_code,
    )  # fmt: skip


def default_devices() -> tuple[str, ...]:
    """Return every shipped device in its default setting."""
    return tuple(name for name in profile_names() if "--" not in name)


def _simulated(config: JobConfig, request: Request) -> tuple[SimulationResult, int]:
    """Return the result, and how many different pictures its tasks are judged on."""
    settings = simulation_settings(config, weights=Path(config.backbone.weights))
    plan = plan_run(settings)
    config.run.id = "advise-" + content_hash(plan.identity, length=10)  # of these pictures alone
    with cluster(executor_settings(config.executor)):
        result = simulated(config, settings, root=request.run_root, command=request.command)
    say_what_ran(result)
    return result, judged_pictures(plan, settings.num_tasks)


def judged_pictures(plan: RunPlan, num_tasks: int) -> int:
    """Return how many different pictures are queries of at least one of the first tasks."""
    return len({
        (domain.name, int(picture))
        for domain in plan.domains for index in range(num_tasks)
        for pictures in draw_episode(domain, plan.setup.spec(domain.name, index)).query for picture in pictures
    })  # fmt: skip


def _config(
    request: Request,
    weights: Weights,
    pictures: Pictures,
    sizes: TaskSizes,
    *,
    devices: tuple[str, ...],
    resolution: int,
) -> JobConfig:
    """Return the configuration of a normal simulation on the pictures: every class in every task, up to 50."""
    return JobConfig(
        run=RunConfig(root=str(request.run_root)),
        data=DataConfig(domains=[pictures.name], split="all", roots=[str(pictures.root)]),
        episodes=EpisodesConfig(num_tasks=sizes.num_tasks, way=sizes.way, shot=sizes.shot, query=sizes.query),
        backbone=BackboneConfig(name=weights.backbone, resolution=resolution, weights=str(weights.path)),
        methods=list(request.methods),
        devices=DevicesConfig(names=list(devices)),
        finetune=FineTuneConfig(iterations=request.iterations, mode="fast"),
        executor=ExecutorConfig(kind=request.executor),
        wandb=WandbConfig(mode="disabled"),  # pictures of one's own stay here
    )
