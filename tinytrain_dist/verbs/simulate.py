"""``tinytrain simulate key=value ...``: the main job, from images to a comparison of devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tinytrain_dist.backbones.weight_words import STAGES
from tinytrain_dist.execution.settings import cluster
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.foundation.paths import make_folder
from tinytrain_dist.foundation.progress import say
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.page import write_page
from tinytrain_dist.reporting.rendering import render_table
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.wandb_run import log_to_wandb
from tinytrain_dist.simulation.engine import SimulationResult, executor_on, simulate
from tinytrain_dist.simulation.plan_run import plan_run
from tinytrain_dist.simulation.rate_search import search_rate
from tinytrain_dist.simulation.run_document import RATE_SEARCH
from tinytrain_dist.simulation.settings import SimulationSettings
from tinytrain_dist.verbs.compose import command_line, compose_job, config_document, output_location
from tinytrain_dist.verbs.initialization import check_stage, given_weights, initial_weights, weights_word
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.job_help import job_help
from tinytrain_dist.verbs.settings_of import (
    AUTO,
    executor_settings,
    rate_grid,
    simulation_settings,
    wandb_mode,
)


def main(argv: list[str]) -> ExitCode:
    """Run the simulation the words ask for, print the comparison and the page's path."""
    if {"--help", "-h"} & set(argv):
        print(job_help("simulate", "Adapt to target tasks and price them on devices; the same command resumes."))
        return ExitCode.DONE
    start_logging()
    config = compose_job(argv)
    root, executor = output_location(config), executor_settings(config.executor)
    wandb_mode(config)
    settings = checked_settings(config)
    _check_place(config, root)
    with cluster(executor, when_needed=True):
        result = simulated(config, settings, root=root, command=command_line("simulate", argv))
    say_what_ran(result)
    print(render_table(comparison_table(open_run(result.location))))
    print(f"run directory: {result.location}\npage: {publish(config, result)}")
    return result.exit_code


def simulated(config: JobConfig, settings: SimulationSettings, *, root: str | Path, command: str) -> SimulationResult:
    """Run (or complete) one simulation in ``root``: its initial weights first, then its learning rate, then itself."""
    settings = replace(settings, weights=initial_weights(config, root=root, command=command))
    settings, found = with_searched_rate(config, settings, root=root, command=command)
    return simulate(
        settings,
        root=root,
        run_id=config.run.id,
        force_new=config.run.force_new,
        executor=executor_settings(config.executor),
        config=config_document(config) | {"command": command} | found,
    )


def publish(config: JobConfig, result: SimulationResult) -> str:
    """Write the run's page and, where anything was computed, its W&B run; returns the page's path or URI."""
    run = open_run(result.location)
    page = run.folder.publish(write_page(run))
    if result.computed:  # a run that was there already is in W&B already
        to = config.wandb
        written = log_to_wandb(run, mode=wandb_mode(config), project=to.project, group=to.group, entity=to.entity)
        if written is not None:
            run.folder.publish(written)
    return page


def _check_place(config: JobConfig, root: str) -> None:
    """Raise before a cluster starts where nothing can be written, or only stages that need a local folder could."""
    if "://" not in root:
        make_folder(Path(root))
        return
    for key, value in {
        "backbone.weights": weights_word(config),
        "finetune.learning_rate": config.finetune.learning_rate,
    }.items():
        if value in (*STAGES, AUTO):
            raise ConfigError(
                f"{key}: found {value!r}; its stage writes into a local folder, run.root is {root}: run it with a "
                f"local run.root first and give what it found"
            )
    open_storage(root).read_if_there("run.json")  # a wrong bucket, key or address is said here


def checked_settings(config: JobConfig) -> SimulationSettings:
    """Return the simulation asked for; what is wrong with it is said before a cluster or an earlier stage starts."""
    settings = simulation_settings(config, weights=given_weights(config))
    executor_on(settings, executor_settings(config.executor))
    plan_run(settings)
    if (grid := rate_grid(config)) is not None:
        grid.check(settings)
        plan_run(grid.trial(settings, rate=grid.rates[0]))
    check_stage(config)
    return settings


def with_searched_rate(
    config: JobConfig, settings: SimulationSettings, *, root: str | Path, command: str
) -> tuple[SimulationSettings, dict[str, Any]]:
    """Return the settings with the learning rate to use, and what ``run.json`` says about its choice."""
    grid = rate_grid(config)
    if grid is None:
        return settings, {}
    choice = search_rate(settings, grid, root=Path(root), executor=executor_settings(config.executor), command=command)
    scores = ", ".join(f"{rate}: {100 * score:.1f} %" for rate, score in choice.scores.items())
    say(f"learning rate {choice.rate:g}, best on valid classes of {' and '.join(choice.grid.domains)} ({scores})")
    finetune = replace(settings.finetune, learning_rate=choice.rate)
    return replace(settings, finetune=finetune), {RATE_SEARCH: choice.document()}


def say_what_ran(result: SimulationResult) -> None:
    """Say how much of the run was computed by this command."""
    if result.computed == 0:
        say(f"{result.run_id}: all {result.reused} tasks were there already; nothing was computed again")
    else:
        say(f"{result.run_id}: {result.computed} tasks computed, {result.reused} reused, {result.failed} failed")
