"""``tinytrain meta-train key=value ...``: episodes -> a meta-trained checkpoint."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.execution.settings import cluster
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.foundation.progress import say
from tinytrain_dist.metatraining.training import MetaTrainResult, meta_train
from tinytrain_dist.verbs.compose import command_line, compose_job, output_root
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.job_help import job_help
from tinytrain_dist.verbs.settings_of import executor_settings, meta_train_settings

SECTIONS = ("seed", "run", "data", "backbone", "meta_train", "executor")


def main(argv: list[str]) -> ExitCode:
    """Run the meta-training the words ask for and print where its weights are."""
    if {"--help", "-h"} & set(argv):
        what = "Meta-train a backbone on episodes of the source domains; the same command resumes."
        print(job_help("meta-train", what, sections=SECTIONS))
        return ExitCode.DONE
    start_logging()
    config = compose_job(argv)
    root = output_root(config)
    with cluster(executor_settings(config.executor)):
        result = run_meta_training(config, root=root, run_id=config.run.id, command=command_line("meta-train", argv))
    print(f"weights: {result.weights_path}")
    return ExitCode.DONE


def run_meta_training(config: JobConfig, *, root: Path, command: str, run_id: str | None = None) -> MetaTrainResult:
    """Run (or reuse) the meta-training of ``config`` and say what it reached on held-out classes."""
    settings = meta_train_settings(config)
    result = meta_train(
        settings,
        root=root,
        run_id=run_id,
        roots=tuple(config.data.roots),
        executor=executor_settings(config.executor),
        command=command,
    )
    how = "was there already and is reused" if result.reused else f"trained in {result.seconds:.0f} s"
    say(f"{result.run_folder.name}: {settings.backbone}, {result.num_rounds} rounds, {how}")
    for name, score in result.validation.items():
        interval = f"{100 * score.accuracy:.1f} +- {100 * score.half_width:.1f} %"
        say(f"  held-out classes of {name}: {interval} ({settings.validation_way}-way {settings.validation_shot}-shot)")
    return result
