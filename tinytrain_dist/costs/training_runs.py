"""Rows of whole training runs: what was adapted, how long it took, and what of it was the Fisher pass."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tinytrain_dist.costs.measurements import Setting
from tinytrain_dist.foundation.errors import ProfileError
from tinytrain_dist.foundation.hashing import content_hash

_NUMBERS = (
    "batch", "iterations", "images_per_iteration", "forward_macs", "backward_macs", "forward_ops", "backward_ops",
    "peak_memory_bytes", "fisher_macs", "fisher_ops", "fisher_s", "time_s",
)  # fmt: skip
_POSITIVE = ("batch", "iterations", "images_per_iteration", "forward_macs", "forward_ops", "time_s")
_TEXTS = ("profile", "board", "runtime", "precision", "threads", "accelerator", "backbone", "method", "source")


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One adaptation, whole: MACs and operations of one image, images, peak memory, seconds, joules."""

    setting: Setting
    board: str
    backbone: str
    method: str
    batch: float
    iterations: float
    images_per_iteration: float
    forward_macs: float
    backward_macs: float
    forward_ops: float
    backward_ops: float
    peak_memory_bytes: float
    fisher_macs: float
    fisher_ops: float
    fisher_s: float
    time_s: float
    energy_j: float | None
    source: str

    @property
    def images(self) -> float:
        """Images passed forward and backward."""
        return self.iterations * self.images_per_iteration

    @property
    def batches(self) -> float:
        """Batches passed forward and backward: each launches every operation once."""
        return self.iterations * math.ceil(self.images_per_iteration / self.batch)

    @property
    def swapped_passes(self) -> float:
        """Passes (forward and backward of every batch) in which what exceeds the RAM goes to storage."""
        return 2 * self.batches


def read_training_runs(path: Path) -> tuple[TrainingRun, ...]:
    """Return the rows of ``path``; raises ``ProfileError`` naming file, line and column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            missing = [name for name in (*_TEXTS, *_NUMBERS) if name not in (reader.fieldnames or ())]
            if missing:
                raise ProfileError(f"{path}: column {', '.join(map(repr, missing))} is missing")
            return tuple(_run(path, reader.line_num, cells) for cells in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ProfileError(f"{path}: cannot be read: {exc}") from exc


def runs_hash(runs: Iterable[TrainingRun]) -> str:
    """Return the content hash of all that a fit reads of ``runs``: MACs, operations and peaks, too."""
    return content_hash([
        [run.setting.long_name, run.backbone, run.method, run.energy_j, *(getattr(run, name) for name in _NUMBERS)]
        for run in runs
    ])[:16]  # fmt: skip


def _run(path: Path, line: int, cells: dict[str, str]) -> TrainingRun:
    numbers = {name: _number(path, line, name, cells[name]) for name in _NUMBERS}
    energy = cells.get("energy_j", "")
    setting = Setting(
        profile=cells["profile"],
        runtime=cells["runtime"],
        precision=cells["precision"],
        threads=int(_number(path, line, "threads", cells["threads"])),
        accelerator=cells["accelerator"],
    )
    return TrainingRun(
        setting=setting, board=cells["board"], backbone=cells["backbone"], method=cells["method"],
        source=cells["source"], energy_j=_number(path, line, "energy_j", energy) if energy else None, **numbers,
    )  # fmt: skip


def _number(path: Path, line: int, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or (value == 0 and column in _POSITIVE):
        low = "above 0" if column in _POSITIVE else "0 or more"
        raise ProfileError(f"{path}, line {line}, column {column!r}: found {text!r}; allowed: a plain number, {low}")
    return value
