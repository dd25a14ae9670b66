"""What a training leaves for readers: its page and its W&B run."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.reporting.training_log import TrainingLog
from tinytrain_dist.reporting.training_page import write_training_page
from tinytrain_dist.reporting.training_run import open_training
from tinytrain_dist.reporting.wandb_training import log_training_to_wandb
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.settings_of import wandb_mode


def publish_training(config: JobConfig, result: TrainingResult, heard: TrainingLog) -> Path:
    """Write the page of a training and, where anything was trained, its W&B run; returns the page's path."""
    if heard.figures:
        heard.save(result.run_folder)
    run = open_training(result.run_folder)
    page = write_training_page(run)
    if not result.reused:
        to = config.wandb
        log_training_to_wandb(run, mode=wandb_mode(config), project=to.project, group=to.group, entity=to.entity)
    return page
