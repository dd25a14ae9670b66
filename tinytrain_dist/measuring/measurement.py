"""One measurement: the designed cases in blocks, rows written as blocks finish, what is there already left alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tinytrain_dist.costs.measurements import OPERATION_COLUMNS
from tinytrain_dist.costs.phase_amounts import FURTHER
from tinytrain_dist.execution.threads import keep_freed_memory, use_one_thread
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.foundation.progress import progress, say
from tinytrain_dist.measuring.cases import Case
from tinytrain_dist.measuring.design import designed_cases
from tinytrain_dist.measuring.energy_sensors import EnergyMeter, find_meter
from tinytrain_dist.measuring.machine import Machine, read_machine
from tinytrain_dist.measuring.row_file import cell, read_rows, write_rows
from tinytrain_dist.measuring.settings import MeasureSettings
from tinytrain_dist.measuring.timing import Timer, Timing

LEAST_MS = 1e-6
"""A difference of two runs below this is noise: the row is kept as rejected."""
BLOCK = 24
"""Cases that take turns; an interruption loses at most so many."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a measurement left: the file, its rows, how many of them are new, and what could not be recorded."""

    path: Path
    num_rows: int
    num_added: int
    notices: tuple[str, ...]


def measure(
    path: Path, *, settings: MeasureSettings, cases: Sequence[Case] | None = None, root: Path = Path("/")
) -> Measured:
    """Measure the designed cases (or ``cases``) that ``path`` does not hold yet and add their rows.

    Clock, governor and energy sensors are read below ``root``.

    Raises ``ProfileError`` for a damaged file and ``ConfigError`` where it was measured with other settings.
    """
    set_up_threads(settings.threads)
    machine, meter = read_machine(root), find_meter(root)
    rows = read_rows(path)
    known = {(row["phase"], row["model"]) for row in rows}
    quiet_s = float(rows[0]["quiet_reference_ms"]) / 1e3 if rows else None
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".measure-") as scratch:
        wanted = designed_cases(settings, Path(scratch)) if cases is None else list(cases)
        missing = [case for case in wanted if case.key not in known]
        timer = Timer(
            threads=settings.threads, rounds=settings.rounds, min_sample_ms=settings.min_sample_ms,
            quiet_seconds=quiet_s, meter=meter,
        )  # fmt: skip
        common = _common_cells(settings, machine, timer)
        _check_same(path, rows, common)
        notices = _notices(machine, meter)
        for notice in notices:
            say(notice)
        _run(path, rows, missing, timer=timer, common=common, total=len(wanted), settings=settings)
    return Measured(path=path, num_rows=len(rows), num_added=len(missing), notices=tuple(notices))


def set_up_threads(threads: int) -> None:
    """Give torch so many threads and let it keep freed memory, as every process that computes does."""
    keep_freed_memory()
    if threads == 1:
        use_one_thread()
    else:
        torch.set_num_threads(threads)


def _run(
    path: Path,
    rows: list[dict[str, str]],
    missing: Sequence[Case],
    *,
    timer: Timer,
    common: dict[str, str],
    total: int,
    settings: MeasureSettings,
) -> None:
    with progress("measured", total=total, done=total - len(missing)) as meter:
        for start in range(0, len(missing), BLOCK):
            block = missing[start : start + BLOCK]
            timings = timer.time_block(block)
            rows += [_row(case, t, common, settings) for case, t in zip(block, timings, strict=True)]
            write_rows(path, rows)
            meter.advance(len(block))


def _common_cells(settings: MeasureSettings, machine: Machine, timer: Timer) -> dict[str, str]:
    version = torch.__version__.split("+")[0]
    return {
        "profile": settings.profile, "board": machine.board, "runtime": f"torch-{version}", "precision": "fp32",
        "threads": str(settings.threads), "accelerator": "cpu", "power_mode": "", "batch": str(settings.batch),
        "timer": timer.stopwatch.name, "quiet_reference_ms": cell(1e3 * timer.quiet_seconds),
        "clock_hz": cell(machine.clock_hz), "governor": cell(machine.governor), "rounds": str(settings.rounds),
        "status": "measured", "source": f"tinytrain measure, seed {settings.seed}",
    }  # fmt: skip


def _check_same(path: Path, rows: Sequence[dict[str, str]], common: dict[str, str]) -> None:
    for column in ("profile", "board", "runtime", "threads", "batch"):
        if rows and rows[0][column] != common[column]:
            raise ConfigError(
                f"{path}: its rows were measured with {column} {rows[0][column]!r}, not {common[column]!r}; "
                "give another file with out=FILE"
            )


def _notices(machine: Machine, meter: EnergyMeter | None) -> list[str]:
    found = machine.notices()
    if meter is None:
        found.append("energy: none (no RAPL counter and no INA sensor that can be read)")
    else:
        found.append(f"energy: {meter.name}, of everything that runs on this machine")
    return found


def _row(case: Case, timing: Timing, common: dict[str, str], settings: MeasureSettings) -> dict[str, str]:
    share = settings.batch if case.per_image else 1
    latency = timing.latency_ms / share
    energy = None if timing.power_w is None else timing.power_w * latency
    totals = {name: cell(case.amounts.get(name, 0.0), digits=12) for name in (*OPERATION_COLUMNS, *FURTHER)}
    return common | totals | {
        "phase": case.phase, "model": case.model, "family": case.family, "resolution": str(case.resolution),
        "latency_ms": cell(max(latency, LEAST_MS)), "energy_mj": cell(energy), "spread": cell(timing.spread, digits=3),
        "active_power_w": cell(timing.power_w),
        "median_ms": cell(timing.median_ms), "reference_ms": cell(timing.reference_ms),
        "status": "measured" if latency > LEAST_MS else "rejected",
    }  # fmt: skip
