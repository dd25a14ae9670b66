"""Opens the run directory of a training (meta-training or pre-training) for reading: its record and its curves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.foundation.redaction import redact
from tinytrain_dist.metatraining.curves import CurveRow, read_curves
from tinytrain_dist.metatraining.run_folder import PICTURES
from tinytrain_dist.reporting.training_log import RATE, read_figures

KINDS = {"meta_train": "Meta-training", "pretrain": "Pre-training"}


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training, read-only; ``record`` is run.json with every secret replaced, ``figures`` what was heard by round."""

    path: Path
    record: dict[str, Any]
    curves: list[CurveRow]
    figures: dict[int, dict[str, float]]

    @property
    def speed(self) -> dict[int, float]:
        """Return slots per second by round."""
        return {number: own[RATE] for number, own in self.figures.items() if RATE in own}

    @property
    def kind(self) -> str:
        """Return ``meta_train`` or ``pretrain``."""
        return str(self.record["kind"])

    @property
    def slots(self) -> str:
        """Return what its rounds are counted in: ``episodes`` or ``batches``."""
        return "episodes" if self.kind == "meta_train" else "batches"

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings it was made with."""
        found = self.record.get("settings")
        return found if isinstance(found, dict) else {}

    @property
    def planned_rounds(self) -> int | None:
        """Return how many rounds were planned; records of earlier versions say so of meta-trainings only."""
        if planned := self.record.get("planned_rounds"):
            return int(planned)
        episodes, each = self.settings.get("num_episodes"), self.settings.get("episodes_per_round")
        return -(-episodes // each) if isinstance(episodes, int) and isinstance(each, int) and each > 0 else None

    @property
    def length(self) -> int:
        """Return the rounds in all: as planned, or as many as there are."""
        return max(self.planned_rounds or 0, self.curves[-1]["round"] + 1 if self.curves else 0)

    @property
    def validation(self) -> dict[str, dict[str, float]]:
        """Return accuracy, half width and number of episodes of the final weights per validated domain."""
        found = self.record.get("validation")
        return found if isinstance(found, dict) else {}

    @property
    def weights(self) -> Path:
        """Return where the final checkpoint is."""
        return self.path / "weights.safetensors"

    @property
    def pictures(self) -> list[Path]:
        """Return the pictures of sample episodes."""
        return sorted((self.path / PICTURES).glob("*.png"))

    @property
    def finished(self) -> bool:
        """Return whether the run ended well."""
        return (self.path / "_SUCCESS").exists()


def is_training(location: str | Path) -> bool:
    """Return whether there is a training at ``location`` (a simulation, or nothing, otherwise)."""
    return _kind(Path(location) / "run.json") in KINDS


def open_training(location: str | Path) -> TrainingRun:
    """Open the run directory of a training; raises ``StorageError`` where there is none or it is damaged."""
    path = local_path(str(location), what="run directory")
    if _kind(path / "run.json") not in KINDS:
        raise StorageError(f"{path}: holds no meta-training or pre-training")
    record = redact(json.loads((path / "run.json").read_text(encoding="utf-8")))
    curves = read_curves(path / "curves.parquet")
    return TrainingRun(path=path, record=record, curves=curves, figures=read_figures(path))


def _kind(file: Path) -> str | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(found.get("kind")) if isinstance(found, dict) else None
