"""What a training leaves for readers: its page, kept up to date while it runs, its sample episodes, and its W&B run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.redaction import redact_text
from tinytrain_dist.metatraining.curves import CurveRow
from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.reporting.training_log import TrainingLog
from tinytrain_dist.reporting.training_page import write_training_page
from tinytrain_dist.reporting.training_run import open_training
from tinytrain_dist.reporting.wandb_live import LiveTraining
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.settings_of import wandb_mode

PAGE_EVERY_S = 60.0
INTERRUPTED_S, FAILED_S = 2.0, 15.0
"""So long the W&B run of a training that was cut short may take to end; who stops a Ray job waits 3 s in all."""
_log = logger(__name__)


class TrainingOutputs:
    """Listens to one training (``TrainingListener``; ``heard`` is its run logger) and keeps what others want to see.

    A killed training loses no more than rounds. As a context it ends the W&B run of a training that is cut short.

    Parameters
    ----------
    pictures
        Writes pictures of sample episodes into the run's folder.
    """

    def __init__(self, config: JobConfig, *, pictures: Callable[[Path], object] | None = None) -> None:
        self.heard = TrainingLog()
        self._mode, self._to, self._pictures = wandb_mode(config), config.wandb, pictures
        self._page_at = float("-inf")
        self._live: LiveTraining | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None and error is not None:
            self._live.stop(within_s=FAILED_S if isinstance(error, Exception) else INTERRUPTED_S)

    def started(self, folder: Path) -> None:
        """Write the sample episodes and begin the W&B run; never fails the training."""
        with _only_logged("there are no pictures of sample episodes"):
            if self._pictures is not None:
                self._pictures(folder)
        with _only_logged("there is no W&B run of the training"):
            run, to = open_training(folder), self._to
            self._live = LiveTraining(run, mode=self._mode, project=to.project, group=to.group, entity=to.entity)
            self._live.start()

    def round_done(self, row: CurveRow) -> None:
        """Pass the round on to its W&B run."""
        if self._live is not None:
            self._live.add(row, dict(self.heard.figures.get(row["round"], {})))

    def saved(self, folder: Path) -> None:
        """Write what was heard into the run's folder, and its page at most once a minute; never fails the training."""
        self.heard.save(folder)
        if time.monotonic() - self._page_at < PAGE_EVERY_S:
            return
        self._page_at = time.monotonic()
        with _only_logged("the page of the training is not up to date"):
            write_training_page(open_training(folder))

    def publish(self, result: TrainingResult) -> Path:
        """Write the page of a training and, where anything was trained, the end of its W&B run; returns the page."""
        if self.heard.figures:
            self.heard.save(result.run_folder)
        run = open_training(result.run_folder)
        page = write_training_page(run)
        if self._live is not None:
            self._live.finish(run)
        return page


@contextmanager
def _only_logged(words: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a listener cannot fail a training, whatever is wrong with it
        _log.warning("%s: %s", words, redact_text(f"{type(error).__name__}: {error}"))
