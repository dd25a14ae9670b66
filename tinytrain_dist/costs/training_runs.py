"""Rows of whole training runs: what was adapted, how long it took, and what of it was the Fisher pass."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from tinytrain_dist.costs.measurements import REPEAT_FACTOR, Setting, setting_of_row, status_of_row
from tinytrain_dist.foundation.errors import ProfileError
from tinytrain_dist.foundation.hashing import content_hash

_NUMBERS = (
    "batch", "iterations", "images_per_iteration", "forward_macs", "backward_macs", "forward_ops", "backward_ops",
    "peak_memory_bytes", "fisher_macs", "fisher_ops", "fisher_s", "time_s",
)  # fmt: skip
_POSITIVE = ("batch", "iterations", "images_per_iteration", "forward_macs", "forward_ops", "time_s")
PLAUSIBLE_POWER_W = (0.005, 300.0)
"""Mean power of a board over a run: outside, energy or time is in another unit."""
RUN_UNIT_FACTOR = 30.0
"""A run this many times slower or faster per MAC than its setting's median; swapping makes it 5 times slower."""
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
    """Return the rows of ``path`` that are not rejected.

    Raises
    ------
    ProfileError
        A missing column, a cell that is no plain number, no rows, times or energies in another unit, or two rows of
        one run that contradict each other; names file, line and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            missing = [name for name in (*_TEXTS, *_NUMBERS) if name not in (reader.fieldnames or ())]
            if missing:
                raise ProfileError(f"{path}: column {', '.join(map(repr, missing))} is missing")
            lines = [(reader.line_num, _texts(cells)) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ProfileError(f"{path}: cannot be read: {exc}") from exc
    runs = {line: _run(path, line, cells) for line, cells in lines if status_of_row(path, line, cells) == "measured"}
    if not runs:
        raise ProfileError(f"{path}: no rows; allowed: at least one training run")
    _check_units(path, runs)
    _check_duplicates(path, runs)
    return tuple(runs.values())


def _texts(cells: Mapping[str | None, Any]) -> dict[str, str]:
    return {str(key): str(value or "").strip() for key, value in cells.items() if key is not None}


def _check_units(path: Path, runs: Mapping[int, TrainingRun]) -> None:
    """Refuse what the columns' units cannot say: a part longer than the whole, watts of no board, a lone row."""
    groups: dict[Setting, list[float]] = {}
    for run in runs.values():
        groups.setdefault(run.setting, []).append(_s_per_mac(run))
    for line, run in runs.items():
        if run.fisher_s > run.time_s:
            raise ProfileError(
                f"{path}, line {line}: fisher_s {run.fisher_s:g} exceeds time_s {run.time_s:g}; allowed: seconds in "
                "both, the Fisher pass being part of the run"
            )
        low, high = PLAUSIBLE_POWER_W
        if run.energy_j is not None and not low <= run.energy_j / run.time_s <= high:
            raise ProfileError(
                f"{path}, line {line}: energy_j over time_s is {run.energy_j / run.time_s:.3g} W; allowed: {low:g} to "
                f"{high:g} W (joules and seconds?)"
            )
        ratio = _s_per_mac(run) / median(groups[run.setting])
        if not 1 / RUN_UNIT_FACTOR < ratio < RUN_UNIT_FACTOR:
            raise ProfileError(
                f"{path}, line {line}: time_s {run.time_s:g} of {run.backbone} {run.method} is {ratio:.3g} times what "
                "the other runs of the setting say per MAC; allowed: seconds in every row (mixed units?)"
            )


def _s_per_mac(run: TrainingRun) -> float:
    return run.time_s / (run.images * (run.forward_macs + run.backward_macs))


def _check_duplicates(path: Path, runs: Mapping[int, TrainingRun]) -> None:
    repeats: dict[object, list[int]] = {}
    for line, run in runs.items():
        repeats.setdefault(replace(run, time_s=0.0, fisher_s=0.0, energy_j=None, board="", source=""), []).append(line)
    for lines in repeats.values():
        by_time = sorted(lines, key=lambda line: runs[line].time_s)
        first, last = sorted((by_time[0], by_time[-1]))
        one, other = runs[first], runs[last]
        if max(one.time_s, other.time_s) > REPEAT_FACTOR * min(one.time_s, other.time_s):
            raise ProfileError(
                f"{path}, lines {first} and {last}: {one.backbone} {one.method} on {one.setting.long_name} took "
                f"{one.time_s:g} and {other.time_s:g} s; allowed: one, the other with status 'rejected'"
            )


def runs_hash(runs: Iterable[TrainingRun]) -> str:
    """Return the content hash of all that a fit reads of ``runs``: MACs, operations and peaks, too."""
    return content_hash([
        [run.setting.long_name, run.backbone, run.method, run.energy_j, *(getattr(run, name) for name in _NUMBERS)]
        for run in runs
    ])[:16]  # fmt: skip


def _run(path: Path, line: int, cells: Mapping[str, str]) -> TrainingRun:
    numbers = {name: _number(path, line, name, cells[name]) for name in _NUMBERS}
    energy = cells.get("energy_j", "")
    return TrainingRun(
        setting=setting_of_row(path, line, cells),
        board=cells["board"], backbone=cells["backbone"], method=cells["method"],
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
