"""The W&B run of a training while it runs: opened at its start, its rounds as they happen, its end at its end.

A thread of its own does it all, so that neither a slow server nor a client that hangs holds up a round. What it writes
is what ``log_training_to_wandb`` writes of a training that is over.
"""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread
from typing import Any

from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.metatraining.curves import CurveRow
from tinytrain_dist.reporting.training_run import TrainingRun
from tinytrain_dist.reporting.wandb_session import CONNECT_S, FINISH_S, PROJECT, Mode, give_up, write_entry
from tinytrain_dist.reporting.wandb_training import log_end, log_pictures, log_rounds, training_entry

EVERY_S = 2.0
"""So often the rounds done since are logged."""
END_S = FINISH_S + 2 * CONNECT_S
"""So long the end may take: uploading, or finding the server gone and writing an offline copy."""
UNOPENED_S = 0.2
_CUT_SHORT = 1
_LOG = logger(__name__)


class LiveTraining:
    """Writes one training's W&B run from its start on.

    Parameters
    ----------
    run
        The training as it starts; its earlier rounds are logged, too, unless the W&B run has them.
    """

    def __init__(
        self, run: TrainingRun, *, mode: Mode, project: str = PROJECT, group: str | None = None,
        entity: str | None = None,
    ) -> None:  # fmt: skip
        self._run, self._mode = run, mode
        self._entry = training_entry(run, self._fill, project=project, group=group, entity=entity)
        self._over, self._opened = Event(), Event()
        self._final: TrainingRun | None = None
        self._folder: Path | None = None
        self._thread = Thread(target=self._write, name="wandb", daemon=True)  # never holds up the interpreter's exit

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def add(self, row: CurveRow, figures: dict[str, float]) -> None:
        """Hear of a round; it is logged within ``EVERY_S``."""
        self._run.figures[row["round"]] = figures
        self._run.curves.append(row)  # last: the thread looks for rows

    def finish(self, run: TrainingRun) -> Path | None:
        """Write the end of a training that is over; returns the W&B run's folder, None where there is none (logged)."""
        self._final = run
        self._end(within_s=END_S)
        return self._folder

    def stop(self, *, within_s: float) -> None:
        """End the W&B run of a training that was cut short as failed, or leave it as it is when that takes too long.

        One that is not even open holds nothing to wait for.
        """
        self._end(within_s=within_s if self._opened.is_set() else min(within_s, UNOPENED_S))

    def _end(self, *, within_s: float) -> None:
        self._over.set()
        try:
            self._thread.join(timeout=within_s)
        finally:  # a second Ctrl-C waits no longer
            if self._thread.is_alive():
                _LOG.warning("W&B: the run is left unfinished: its client does not end")
                give_up(self._entry)

    def _write(self) -> None:
        self._folder = write_entry(self._entry, self._mode)

    def _fill(self, wandb: Any, writer: Any) -> int:
        self._opened.set()
        log_pictures(wandb, writer, self._run)
        while not self._over.wait(EVERY_S):
            log_rounds(writer, self._run)
        if self._final is None:
            log_rounds(writer, self._run)
            return _CUT_SHORT
        log_end(wandb, writer, self._final)
        return 0
