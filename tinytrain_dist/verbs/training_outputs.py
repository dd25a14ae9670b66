"""What a training leaves for readers: its page, kept up to date while it runs, and its W&B run."""

from __future__ import annotations

import time
from pathlib import Path

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.reporting.training_log import TrainingLog
from tinytrain_dist.reporting.training_page import write_training_page
from tinytrain_dist.reporting.training_run import open_training
from tinytrain_dist.reporting.wandb_training import log_training_to_wandb
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.settings_of import wandb_mode

PAGE_EVERY_S = 60.0
_log = logger(__name__)


class TrainingOutputs:
    """What one training said (``heard``), kept at every checkpoint, so that a killed one loses no more than rounds."""

    def __init__(self) -> None:
        self.heard = TrainingLog()
        self._page_at = float("-inf")

    def keep(self, folder: Path) -> None:
        """Write what was heard into the run's folder, and its page at most once a minute; never fails the training."""
        self.heard.save(folder)
        if time.monotonic() - self._page_at < PAGE_EVERY_S:
            return
        self._page_at = time.monotonic()
        try:
            write_training_page(open_training(folder))
        except StorageError as error:
            _log.warning("the page of the training is not up to date: %s", error)

    def publish(self, config: JobConfig, result: TrainingResult) -> Path:
        """Write the page of a training and, where anything was trained, its W&B run; returns the page's path."""
        if self.heard.figures:
            self.heard.save(result.run_folder)
        run = open_training(result.run_folder)
        page = write_training_page(run)
        if not result.reused:
            to = config.wandb
            log_training_to_wandb(run, mode=wandb_mode(config), project=to.project, group=to.group, entity=to.entity)
        return page
