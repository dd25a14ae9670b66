"""``tinytrain pretrain key=value ...``: labelled views -> a pre-trained checkpoint."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.execution.settings import cluster
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.foundation.progress import say
from tinytrain_dist.metatraining.pretraining import pretrain
from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.verbs.compose import command_line, compose_job, output_root
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.job_help import job_help
from tinytrain_dist.verbs.settings_of import executor_settings, pretrain_settings
from tinytrain_dist.verbs.training_outputs import TrainingOutputs
from tinytrain_dist.verbs.training_words import say_result

SECTIONS = ("seed", "run", "data", "backbone", "pretrain", "executor", "wandb")


def main(argv: list[str]) -> ExitCode:
    """Run the pre-training the words ask for and print where its weights are."""
    if {"--help", "-h"} & set(argv):
        what = "Pre-train a backbone on views of the source domains, alone or by a teacher; the same command resumes."
        print(job_help("pretrain", what, sections=SECTIONS, example="experiment=pretrain_distill"))
        return ExitCode.DONE
    start_logging()
    config = compose_job(argv)
    root = output_root(config)
    with cluster(executor_settings(config.executor)):
        result = run_pretraining(config, root=root, run_id=config.run.id, command=command_line("pretrain", argv))
    print(f"weights: {result.weights_path}")
    return ExitCode.DONE


def run_pretraining(config: JobConfig, *, root: Path, command: str, run_id: str | None = None) -> TrainingResult:
    """Run (or reuse) the pre-training of ``config`` and say what it reached on held-out classes."""
    settings = pretrain_settings(config)
    with TrainingOutputs(config) as outputs:
        result = pretrain(
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
