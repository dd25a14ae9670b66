"""``TrainingListener``: who hears how far a training is, so that others can watch it while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tinytrain_dist.metatraining.curves import CurveRow


class TrainingListener(Protocol):
    """Hears of a training; an implementation never raises and never takes long (a listener cannot fail a run)."""

    def started(self, folder: Path) -> None:
        """Rounds are about to begin; record and curves of what was done before lie in the run's folder."""

    def round_done(self, row: CurveRow) -> None:
        """Hear of a round, which may not be in the folder yet."""

    def saved(self, folder: Path) -> None:
        """Curves and checkpoint have been written into the run's folder."""


class SilentTrainingListener:
    """Hears nothing."""

    def started(self, folder: Path) -> None:
        """Ignore the start."""

    def round_done(self, row: CurveRow) -> None:
        """Ignore the round."""

    def saved(self, folder: Path) -> None:
        """Ignore the checkpoint."""
