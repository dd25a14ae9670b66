"""``tinytrain meta-train key=value ...``: episodes -> a meta-trained checkpoint."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from tinytrain_dist.backbones.shipped_weights import SHIPPED, shipped_path
from tinytrain_dist.backbones.weight_words import PRETRAIN
from tinytrain_dist.execution.settings import cluster
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.foundation.progress import say
from tinytrain_dist.metatraining.episode_pictures import save_episode_pictures
from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.metatraining.training import meta_train
from tinytrain_dist.verbs.compose import command_line, compose_job, output_root
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.job_help import job_help
from tinytrain_dist.verbs.pretrain import run_pretraining
from tinytrain_dist.verbs.settings_of import executor_settings, meta_train_settings, pretrain_settings
from tinytrain_dist.verbs.training_outputs import TrainingOutputs
from tinytrain_dist.verbs.training_words import say_result

SECTIONS = ("seed", "run", "data", "backbone", "pretrain", "meta_train", "executor", "wandb")


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


def run_meta_training(config: JobConfig, *, root: Path, command: str, run_id: str | None = None) -> TrainingResult:
    """Run (or reuse) the meta-training of ``config``, the pre-training before it if it asks for one."""
    settings = meta_train_settings(config)
    if settings.initial_weights == PRETRAIN:
        pretrain_settings(config)  # what is wrong with it is said before anything starts
        before = run_pretraining(config, root=root, command=command)
        settings = replace(settings, initial_weights=str(before.weights_path))
    elif settings.initial_weights == SHIPPED:
        settings = replace(settings, initial_weights=str(shipped_path(settings.backbone)))
    pictures = partial(save_episode_pictures, settings, roots=tuple(config.data.roots))
    with TrainingOutputs(config, pictures=pictures) as outputs:
        result = meta_train(
            settings,
            root=root,
            run_id=run_id,
            roots=tuple(config.data.roots),
            executor=executor_settings(config.executor),
            command=command,
            run_logger=outputs.heard,
            listener=outputs,
        )
        say_result(result, settings)
        say(f"page: {outputs.publish(result)}")
    return result
