"""``tinytrain meta-train key=value ...``: episodes -> a meta-trained checkpoint."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.execution.settings import cluster
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.foundation.progress import say
from tinytrain_dist.metatraining.training import MetaTrainResult, meta_train
from tinytrain_dist.verbs.compose import compose_job, config_document, output_root
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.job_help import job_help
from tinytrain_dist.verbs.settings_of import executor_settings, meta_train_settings

SECTIONS = ("seed", "run", "backbone", "meta_train", "executor", "data")


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
        result = run_meta_training(config, root=root, run_id=config.run.id)
    print(f"weights: {result.weights_path}")
    return ExitCode.DONE


def run_meta_training(config: JobConfig, *, root: Path, run_id: str | None = None) -> MetaTrainResult:
    """Run (or reuse) the meta-training of ``config`` and say what it reached on held-out classes."""
    result = meta_train(
        meta_train_settings(config),
        root=root,
        run_id=run_id,
        data_roots=tuple(config.data.roots),
        executor=executor_settings(config.executor),
        config=config_document(config),
    )
    return result
