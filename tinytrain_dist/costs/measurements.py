"""Rows of measurements: what ran, on which setting of which device, and how long it took.

One CSV, one row per measured network. The columns of operation totals are the same in a file of operations to
predict; there the columns of results may be missing or empty.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinytrain_dist.costs.phase_amounts import FURTHER
from tinytrain_dist.foundation.errors import ConfigError, ProfileError, nearest
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.foundation.paths import check_name

ELEMENT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
OPERATION_COLUMNS = (
    "macs_conv", "macs_pointwise", "macs_depthwise", "macs_linear", "weights", "activations_in_out", "ops",
)  # fmt: skip
SETTING_COLUMNS = ("profile", "board", "runtime", "precision", "threads", "accelerator")
ROW_COLUMNS = (*SETTING_COLUMNS, "model", "family", *OPERATION_COLUMNS, "latency_ms", "source")
OPTIONAL_COLUMNS = (
    "phase", "power_mode", "resolution", "biases", "energy_mj", "active_power_w", "status", *FURTHER,
)  # fmt: skip
STATUSES = ("measured", "rejected")
PHASES = ("forward", "input_grad", "weight_grad", "fisher", "optimizer", "load", "adapters", "step")
"""What a row timed: a forward pass (where no phase is stated), one part of a training step, or loading the weights.

The totals are those of what ran: of ``input_grad`` the layers passed backward, of ``weight_grad`` the updated
shares, of ``fisher`` forward and backward layers together; ``optimizer`` and ``load`` use ``weights`` alone;
``adapters`` are lite residual modules, both ways. A whole
``step`` (forward and backward of one image) checks the others and is not fitted.
"""
MAX_FILE_BYTES = 16 << 20
PHASES_WITH_MACS = ("forward", "input_grad", "weight_grad", "fisher", "adapters", "step")
"""Phases whose time goes with their MACs: one in another unit than its neighbours stands out."""
REPEAT_FACTOR = 1.25
"""Repeats of one network on one setting that differ by more contradict each other."""
UNIT_FACTOR = 300.0
"""A row this many times slower or faster per MAC than its neighbours was written in another unit."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True, kw_only=True, order=True)
class Setting:
    """The key of a profile: the same board differs 2.7 times between runtime versions."""

    profile: str
    runtime: str
    precision: str
    threads: int
    accelerator: str
    power_mode: str = ""

    @property
    def long_name(self) -> str:
        """Name of the profile of a setting that is not the device's default."""
        runtime = _UNSAFE.sub("-", self.runtime)
        name = f"{self.profile}--{runtime}--{self.precision}--t{self.threads}--{self.accelerator}"
        return f"{name}--{_UNSAFE.sub('-', self.power_mode)}" if self.power_mode else name


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Totals of one network: MACs by class, weights, activation elements in and out, number of operations."""

    macs_conv: float
    macs_pointwise: float
    macs_depthwise: float
    macs_linear: float
    weights: float
    activations_in_out: float
    ops: float

    @property
    def macs(self) -> float:
        """All MACs of one forward pass."""
        return self.macs_conv + self.macs_pointwise + self.macs_depthwise + self.macs_linear


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measured network on one setting of one device."""

    setting: Setting
    board: str
    model: str
    family: str
    operations: Operations
    latency_ms: float
    energy_mj: float | None
    status: str
    source: str
    line: int
    phase: str = "forward"
    further: tuple[tuple[str, float], ...] = ()

    def amount(self, name: str) -> float:
        """Return one of the counts of ``phase_amounts.AMOUNTS``; 0 where the row does not state it."""
        if name in FURTHER:
            return dict(self.further).get(name, 0.0)
        value: float = getattr(self.operations, name)
        return value

    @property
    def label(self) -> str:
        """Name of the row in messages and records."""
        return self.model


def read_measurements(*paths: Path) -> tuple[Measurement, ...]:
    """Return the rows of ``paths``, in order; what one file may not say, several together may not say either.

    Raises
    ------
    ProfileError
        A missing column, a cell that is no plain positive number, a unit other than the column's, or two rows of
        the same network and setting that contradict each other; names file, line and column.
    """
    placed: list[tuple[Path, Measurement]] = []
    for path in paths:
        found = [(path, _measurement(path, line, cells)) for line, cells in _records(path, ROW_COLUMNS)]
        if not found:
            raise ProfileError(f"{path}: no rows; allowed: at least one measurement")
        placed += found
    _check_units(placed)
    _check_duplicates(placed)
    return tuple(row for _, row in placed)


def read_operations(path: Path) -> tuple[Operations, ...]:
    """Return the operation totals of each row of ``path``, in order; other columns are ignored."""
    found = tuple(_operations(path, line, cells) for line, cells in _records(path, OPERATION_COLUMNS, ConfigError))
    if not found:
        raise ConfigError(f"{path}: no rows; allowed: one row per network")
    return found


def rows_hash(rows: Iterable[Measurement]) -> str:
    """Return the content hash of all that a fit reads of ``rows``: operation totals and further counts, too."""
    return content_hash([
        [
            row.setting.long_name, row.phase, row.model, row.family, row.status, row.latency_ms, row.energy_mj,
            [getattr(row.operations, name) for name in OPERATION_COLUMNS], [list(pair) for pair in row.further],
        ]
        for row in rows
    ])[:16]  # fmt: skip


def _records(
    path: Path, columns: Sequence[str], error: type[ConfigError] | type[ProfileError] = ProfileError
) -> list[tuple[int, dict[str, str]]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise error(f"{path}: {path.stat().st_size} bytes; allowed: at most {MAX_FILE_BYTES}")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = list(reader.fieldnames or ())
            _check_columns(path, names, columns, error)
            return [(reader.line_num, _cells(path, reader.line_num, record, error)) for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise error(f"{path}: cannot be read: {exc}") from exc


def _check_columns(
    path: Path, names: list[str], columns: Sequence[str], error: type[ConfigError] | type[ProfileError]
) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise error(f"{path}: column {twice[0]!r} stands there twice; allowed: once")
    missing = [name for name in columns if name not in names]
    if missing:
        strangers = [name for name in names if name not in (*ROW_COLUMNS, *OPTIONAL_COLUMNS)]
        hint = f"; {nearest(missing[0], strangers)}" if strangers else ""
        raise error(f"{path}: column {', '.join(map(repr, missing))} is missing; found: {', '.join(names)}{hint}")


def _cells(
    path: Path, line: int, record: dict[str, str | None], error: type[ConfigError] | type[ProfileError]
) -> dict[str, str]:
    if None in record or any(value is None for value in record.values()):
        raise error(f"{path}, line {line}: the row has not as many cells as the header has columns")
    return {key: str(value).strip() for key, value in record.items()}


def _measurement(path: Path, line: int, cells: dict[str, str]) -> Measurement:
    _check_texts(path, line, cells, ("model", "family"))
    setting = setting_of_row(path, line, cells)
    status = status_of_row(path, line, cells)
    phase = cells.get("phase") or "forward"
    if phase not in PHASES:
        raise ProfileError(f"{path}, line {line}: phase: found {phase!r}; {nearest(phase, PHASES)}")
    energy = cells.get("energy_mj", "")
    return Measurement(
        setting=setting,
        board=cells["board"],
        model=cells["model"],
        family=cells["family"],
        operations=_operations(path, line, cells, needs_macs=phase not in ("optimizer", "load")),
        phase=phase,
        further=tuple((name, _number(path, line, name, cells[name])) for name in FURTHER if cells.get(name)),
        latency_ms=_number(path, line, "latency_ms", cells["latency_ms"], above_zero=True),
        energy_mj=_number(path, line, "energy_mj", energy, above_zero=True) if energy else None,
        status=status,
        source=cells["source"],
        line=line,
    )


def setting_of_row(path: Path, line: int, cells: Mapping[str, str]) -> Setting:
    """Return the setting a row of any file of measurements states; raises ``ProfileError`` naming line and column."""
    _check_texts(path, line, cells, ("profile", "runtime", "accelerator"))
    precision = cells["precision"]
    if precision not in ELEMENT_BYTES:
        raise ProfileError(f"{path}, line {line}: precision: found {precision!r}; {nearest(precision, ELEMENT_BYTES)}")
    if cells["accelerator"] not in ("cpu", "gpu"):
        raise ProfileError(f"{path}, line {line}: accelerator: found {cells['accelerator']!r}; allowed: cpu, gpu")
    return Setting(
        profile=check_name(cells["profile"], what=f"{path}, line {line}: profile", error=ProfileError),
        runtime=cells["runtime"],
        precision=precision,
        threads=int(_number(path, line, "threads", cells["threads"], at_least_one=True)),
        accelerator=cells["accelerator"],
        power_mode=cells.get("power_mode", ""),
    )


def status_of_row(path: Path, line: int, cells: Mapping[str, str]) -> str:
    """Return a row's status, ``measured`` where none is stated."""
    status = cells.get("status") or "measured"
    if status not in STATUSES:
        raise ProfileError(f"{path}, line {line}: status: found {status!r}; {nearest(status, STATUSES)}")
    return status


def _check_texts(path: Path, line: int, cells: Mapping[str, str], columns: Sequence[str]) -> None:
    for column in columns:
        if not cells[column]:
            raise ProfileError(f"{path}, line {line}: column {column!r} is empty; allowed: a text")


def _operations(path: Path, line: int, cells: dict[str, str], *, needs_macs: bool = True) -> Operations:
    values = {key: _number(path, line, key, cells[key]) for key in OPERATION_COLUMNS}
    operations = Operations(**values)
    if needs_macs and operations.macs <= 0:
        raise ProfileError(f"{path}, line {line}: no MACs at all; allowed: macs_conv ... macs_linear above 0 together")
    return operations


def _number(
    path: Path, line: int, column: str, text: str, *, above_zero: bool = False, at_least_one: bool = False
) -> float:
    allowed = "a plain number" + (" above 0" if above_zero else ", whole, 1 or more" if at_least_one else ", 0 or more")
    allowed += f" in the unit of the column's name ({column}), no unit in the cell"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    too_low = value < 1 if at_least_one else value <= 0 if above_zero else value < 0
    if not math.isfinite(value) or too_low or (at_least_one and value != int(value)):
        raise ProfileError(f"{path}, line {line}, column {column!r}: found {text!r}; allowed: {allowed}")
    return value


def _check_units(placed: Sequence[tuple[Path, Measurement]]) -> None:
    groups: dict[object, list[tuple[Path, Measurement]]] = {}
    for path, row in placed:
        if row.phase in PHASES_WITH_MACS:
            groups.setdefault((row.setting, row.phase), []).append((path, row))
    for group in groups.values():
        speeds = sorted(row.latency_ms / row.operations.macs for _, row in group)
        middle = speeds[len(speeds) // 2]
        for path, row in group:
            ratio = row.latency_ms / row.operations.macs / middle
            if len(group) > 1 and not 1 / UNIT_FACTOR < ratio < UNIT_FACTOR:
                raise ProfileError(
                    f"{path}, line {row.line}: latency_ms {row.latency_ms:g} of {row.model} is {ratio:.3g} times what "
                    f"the other {row.phase} rows of the setting say per MAC; allowed: milliseconds in every row "
                    "(mixed units?)"
                )


def _check_duplicates(placed: Sequence[tuple[Path, Measurement]]) -> None:
    repeats: dict[object, list[tuple[Path, Measurement]]] = {}
    for path, row in placed:
        if row.status != "rejected":
            repeats.setdefault((row.setting, row.phase, row.model, row.operations), []).append((path, row))
    for group in repeats.values():
        ends = sorted((min(group, key=_latency), max(group, key=_latency)), key=group.index)
        (first, one), (second, other) = ends
        if max(one.latency_ms, other.latency_ms) > REPEAT_FACTOR * min(one.latency_ms, other.latency_ms):
            where = f"{first}, lines {one.line} and {other.line}"
            if first != second:
                where = f"{first}, line {one.line} and {second}, line {other.line}"
            raise ProfileError(
                f"{where}: {one.model} on {one.setting.long_name} took {one.latency_ms:g} and {other.latency_ms:g} ms; "
                "allowed: one, the other with status 'rejected'"
            )


def _latency(placed: tuple[Path, Measurement]) -> float:
    return placed[1].latency_ms


def by_setting(rows: Iterable[Measurement]) -> dict[Setting, list[Measurement]]:
    """Return the rows of each setting, settings in order."""
    groups: dict[Setting, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(row.setting, []).append(row)
    return {setting: groups[setting] for setting in sorted(groups)}
