"""The work of ``tinytrain calibrate``: files in, profiles out, a report of what each has earned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinytrain_dist.costs.calibrated_profiles import (
    target_of,
    write_measured_phases,
    write_phases,
    write_scaled,
    write_setting,
    write_training,
)
from tinytrain_dist.costs.calibration import CalibratedSetting, calibrate
from tinytrain_dist.costs.calibration_record import ESTIMATE_FACTOR, PhaseCalibration
from tinytrain_dist.costs.latency_forms import form_of
from tinytrain_dist.costs.measured_phases import fit_measured_phases
from tinytrain_dist.costs.measurements import Measurement, by_setting, read_measurements
from tinytrain_dist.costs.phase_fit import calibrate_phases
from tinytrain_dist.costs.power_fit import fit_power
from tinytrain_dist.costs.profile_files import profile_path, read_profile
from tinytrain_dist.costs.scale_fit import scale_backward, scale_forward
from tinytrain_dist.costs.training_fit import CalibratedTraining, calibrate_training
from tinytrain_dist.costs.training_runs import TrainingRun, read_training_runs
from tinytrain_dist.costs.units_check import check_units
from tinytrain_dist.foundation.errors import ProfileError
from tinytrain_dist.foundation.paths import make_folder, resource_folder

SHIPPED_ROWS, SHIPPED_TRAINING, SHIPPED_SCALES = "inference.csv", "training.csv", "scales.csv"


def calibrate_files(
    row_files: Sequence[Path],
    training_files: Sequence[Path],
    *,
    out: Path | None,
    dirs: Sequence[Path] = (),
    base: str | None = None,
    siblings: bool = True,
    scale_files: Sequence[Path] = (),
) -> dict[str, Any]:
    """Calibrate every setting of the files and write its profile; returns one report line per profile and phase."""
    shipped = resource_folder("device_profiles")
    everything = not row_files and not training_files and not scale_files
    rows = read_measurements(*(row_files or ([shipped / "measurements" / SHIPPED_ROWS] if everything else [])))
    scales = read_measurements(*(scale_files or ([shipped / "measurements" / SHIPPED_SCALES] if everything else [])))
    for path in [*row_files, *scale_files]:
        shipped_rows = read_measurements(shipped / "measurements" / SHIPPED_ROWS) if siblings else ()
        check_units(str(path), read_measurements(path), siblings=shipped_rows)
    files = training_files or ([shipped / "measurements" / SHIPPED_TRAINING] if everything else [])
    runs = [run for path in files for run in read_training_runs(path)]
    folder = make_folder(out or (shipped if everything else [*row_files, *training_files, *scale_files][0].parent))
    report = _forward(rows, siblings=siblings, out=folder, dirs=[*dirs, shipped], base=base)
    report += _phases(rows, out=folder, dirs=[*dirs, shipped], base=base)
    report += _training(runs, out=folder, dirs=[*dirs, shipped], base=base)
    report += _scales(scales, out=folder, dirs=[*dirs, shipped])
    return {"out": str(folder), "profiles": report}


def with_siblings(rows: Sequence[Measurement]) -> list[Measurement]:
    """Return ``rows`` and the shipped rows of other settings and networks; of the same network ``rows`` count."""
    own = {(row.setting, row.operations) for row in rows}
    shipped = read_measurements(resource_folder("device_profiles") / "measurements" / SHIPPED_ROWS)
    return [*rows, *(row for row in shipped if (row.setting, row.operations) not in own)]


def _forward(
    rows: Sequence[Measurement], *, siblings: bool, out: Path, dirs: Sequence[Path], base: str | None
) -> list[dict[str, Any]]:
    wanted = {row.setting for row in rows if row.phase == "forward"}
    fitted = with_siblings(rows) if siblings else list(rows)
    found = [item for item in calibrate(fitted) if item.setting in wanted]
    lines = []
    for item in _devices_first(found, dirs):
        own = [row for row in fitted if row.setting == item.setting and row.phase == "forward"]
        notes = [*_notes(item.forward), *_mixed_runtimes(item, rows)]
        lines += _write(item, own, notes=notes, out=out, dirs=dirs, base=base)
    return lines


def _devices_first(found: Sequence[CalibratedSetting], dirs: Sequence[Path]) -> list[CalibratedSetting]:
    """Return the settings so that a new device's first setting is its default: most rows, then most threads."""
    return sorted(found, key=lambda item: (item.setting.profile, -item.forward.rows, -item.setting.threads))


def _write(
    item: CalibratedSetting,
    own: Sequence[Measurement],
    *,
    notes: list[str],
    out: Path,
    dirs: Sequence[Path],
    base: str | None,
) -> list[dict[str, Any]]:
    target = target_of(item.setting, item.board, out=out, dirs=dirs, base=base, form=item.forward.form)
    power = fit_power(own)
    profile = write_setting(target, item, rows=own, power=power)
    lines = [_line(profile.name, "forward", item.forward, notes=notes)]
    if power is not None:
        lines.append(_line(profile.name, "energy", power[1], notes=["given measured time"]))
    return lines


def _phases(rows: Sequence[Measurement], *, out: Path, dirs: Sequence[Path], base: str | None) -> list[dict[str, Any]]:
    lines = []
    timed = [row for row in rows if row.phase != "forward" and row.status == "measured"]
    for setting in sorted({row.setting for row in timed}):
        own = [row for row in timed if row.setting == setting]
        target = target_of(setting, own[0].board, out=out, dirs=dirs, base=base, form=form_of(setting).name)
        if not target.path.is_file():
            raise ProfileError(
                f"phase {own[0].phase!r} of {setting.long_name}: no forward rows and no profile of this setting; "
                "allowed: rows of forward passes in the same file"
            )
        found = calibrate_phases(own, read_profile(target.path, dirs))
        profile = write_phases(target, found)
        notes = [f"{name} {value:g}" for name, value in found.coefficients.items()]
        measured = fit_measured_phases([row for row in rows if row.setting == setting])
        if measured is None:
            lines.append(_line(profile.name, "training", found.training, notes=notes))
            continue
        again = target_of(setting, own[0].board, out=out, dirs=dirs, base=base, form=form_of(setting).name)
        profile = write_measured_phases(again, measured)
        errors = [f"{phase} {error:.1%}" for phase, error in measured.errors.items()]
        if measured.forward and profile.calibration.forward is not None:
            note = "whole passes, by their own fit (replaces the line above)"
            lines.append(_line(profile.name, "forward", profile.calibration.forward, notes=[note]))
        lines.append(_line(profile.name, "training", measured.training, notes=["family out:", *errors]))
    return lines


def _training(
    runs: Sequence[TrainingRun], *, out: Path, dirs: Sequence[Path], base: str | None
) -> list[dict[str, Any]]:
    lines = []
    for setting in sorted({run.setting for run in runs}):
        own = [run for run in runs if run.setting == setting]
        device = profile_path(setting.profile, [out, *dirs])
        if device is None:
            raise ProfileError(
                f"training runs of {setting.profile!r}: no profile of that device states its RAM; calibrate its "
                "inference rows first, or add a profile"
            )
        limits = read_profile(device, [out, *dirs])
        found = calibrate_training(own, ram_bytes=limits.ram_bytes, idle_power_w=limits.idle_power_w or 0.0)
        target = target_of(setting, found.board, out=out, dirs=dirs, base=base, form="linux_cpu")
        profile = write_training(target, found, source=own[0].source.split(";")[0])
        lines.append(_line(profile.name, "training", found.training, notes=swap_notes(found, own)))
        if found.training_energy is not None:
            lines.append(_line(profile.name, "energy", found.training_energy, notes=["of whole training runs"]))
    return lines


def _scales(rows: Sequence[Measurement], *, out: Path, dirs: Sequence[Path]) -> list[dict[str, Any]]:
    """Scale profiles that exist by one or two rows each: forward coefficients first, then the cost of backward MACs."""
    lines = []
    measured = [row for row in rows if row.status == "measured"]
    for setting, own in by_setting(measured).items():
        if profile_path(setting.profile, [out, *dirs]) is None:
            raise ProfileError(f"scales of {setting.profile!r}: no such profile; allowed: rows of a profile that "
                               "states its coefficients, to be scaled")  # fmt: skip
        for phase, timed, scale in (("forward", "forward", scale_forward), ("training", "step", scale_backward)):
            found = [row for row in own if row.phase == timed]
            if found:
                form = form_of(setting).name
                target = target_of(setting, own[0].board, out=out, dirs=dirs, base=None, form=form)
                source = profile_path(str(target.keys["name"]), [out, *dirs]) or profile_path(
                    setting.profile, [out, *dirs]
                )
                assert source is not None
                scaled = scale(found, read_profile(source, [out, *dirs]))
                profile = write_scaled(target, scaled, phase=phase, rows=found)
                lines.append(_line(profile.name, phase, scaled.record, notes=["scale of another device's shape"]))
    return lines


def swap_notes(found: CalibratedTraining, runs: Sequence[TrainingRun]) -> list[str]:
    """Return how much of each run that exceeds the RAM is swap."""
    times = [(run, found.fit.times(run)) for run in runs]
    return [f"{run.backbone} {run.method}: {t.swap_share:.0%} swap" for run, t in times if t.swap_s > 0]


def _notes(forward: PhaseCalibration) -> list[str]:
    notes = [f"contradictory, kept out of the fit: {name}" for name in forward.contradictory]
    notes += [f"more than 4 times off the other rows, check its unit: {name}" for name in forward.suspicious]
    if forward.interval_factor > ESTIMATE_FACTOR:
        notes.append(f"interval x/{forward.interval_factor:g}: no better than an estimate, and called one")
    if forward.families == 1:
        notes.append("one model family only: not validated on another")
    if forward.rows < 3:
        notes.append("too few rows for the form: the shape is the prior's")
    return notes


def _mixed_runtimes(item: CalibratedSetting, rows: Sequence[Measurement]) -> list[str]:
    """Say that rows of one profile name were split: a runtime is part of what a profile stands for."""
    device = item.setting.profile
    found = sorted({row.setting.runtime for row in rows if row.setting.profile == device})
    if len(found) < 2:
        return []
    return [f"rows of {device!r} name {len(found)} runtimes ({', '.join(found)}): a profile each, "
            f"this one {item.setting.runtime}"]  # fmt: skip


def _line(name: str, phase: str, record: PhaseCalibration, *, notes: list[str]) -> dict[str, Any]:
    return {
        "profile": name,
        "phase": phase,
        "standing": record.standing,
        "rows": record.rows,
        "families": record.families,
        "leave_one_out_error": record.leave_one_out_error,
        "leave_family_out_error": record.leave_family_out_error,
        "largest_error": record.largest_error,
        "interval_factor": record.interval_factor,
        "notes": notes,
    }
