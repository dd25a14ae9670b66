"""Calibrations -> profile files: a device's default setting keeps its file, every other setting gets its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinytrain_dist.costs.calibration import CalibratedSetting
from tinytrain_dist.costs.calibration_record import PhaseCalibration
from tinytrain_dist.costs.fit import LIMITS
from tinytrain_dist.costs.latency_forms import COEFFICIENTS
from tinytrain_dist.costs.measured_phases import FORM, MeasuredPhases, error_fields
from tinytrain_dist.costs.measurements import Measurement, Setting
from tinytrain_dist.costs.phase_fit import CalibratedPhases
from tinytrain_dist.costs.profile_files import load_profile, profile_path, read_profile, setting_of
from tinytrain_dist.costs.profile_writer import header_of, own_keys, write_profile
from tinytrain_dist.costs.profiles import DeviceProfile, numeric_fields
from tinytrain_dist.costs.scale_fit import ScaledPhase
from tinytrain_dist.costs.training_fit import CalibratedTraining
from tinytrain_dist.foundation.errors import ProfileError

_STAND_INS = {"microcontroller": "stm32f746", "linux_cpu": "raspberry_pi_4b", "linux_gpu": "jetson_nano"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """The file a setting belongs to, the keys it states already, and the folders of what it may extend."""

    path: Path
    keys: dict[str, Any]
    header: str
    dirs: tuple[Path, ...]


def target_of(
    setting: Setting, board: str, *, out: Path, dirs: Sequence[str | Path], base: str | None, form: str
) -> Target:
    """Return the file of ``setting`` under ``out``.

    The device's own file where it stands for this setting; else the setting's long name, extending the device. A
    device without a file extends ``base`` (or a stand-in of its class): its limits are marked as unsourced, so that
    no fit is promised on another device's memory.
    """
    where = tuple(Path(folder) for folder in ([out, *dirs] if out.is_dir() else dirs))
    device = profile_path(setting.profile, where)
    if device is None:
        return _new_device(setting, board, out=out, dirs=where, base=base or _STAND_INS[form])
    default = read_profile(device, where)
    same_mode = setting.power_mode in ("", default.power_mode)
    if same_mode and setting_of(default) == replace(setting, power_mode=""):
        return Target(path=out / device.name, keys=own_keys(device), header=header_of(device), dirs=where)
    own = profile_path(setting.long_name, where)
    if own is not None:
        return Target(path=out / own.name, keys=own_keys(own), header=header_of(own), dirs=where)
    keys = {"name": setting.long_name, "extends": setting.profile, "board": board or setting.profile}
    return Target(path=out / f"{setting.long_name}.yaml", keys=keys | _setting_keys(setting), header="", dirs=where)


def _setting_keys(setting: Setting) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "runtime": setting.runtime, "precision": setting.precision,
        "threads": setting.threads, "accelerator": setting.accelerator,
    }  # fmt: skip
    return keys | ({"power_mode": setting.power_mode} if setting.power_mode else {})


def _new_device(setting: Setting, board: str, *, out: Path, dirs: tuple[Path, ...], base: str) -> Target:
    parent = load_profile(base, dirs)
    taken_over = f"taken over from {parent.name}: state the device's own value"
    keys: dict[str, Any] = {
        "name": setting.profile,
        "extends": parent.name,
        "board": board or setting.profile,
        "soc": "not stated",
    }
    keys |= _setting_keys(setting) | {"power_mode": setting.power_mode or None}
    keys |= dict.fromkeys(("supply_voltage_v", "active_power_w", "io_power_w", "idle_power_w"))
    unknown = {"kind": "unsourced", "source": "not measured on this device"}
    sources = {
        name: unknown
        if keys.get(name, 0) is None
        else {"kind": "unsourced" if name in LIMITS else "assumed", "source": taken_over}
        for name in numeric_fields()
    }
    header = f"# limits and power are not this device's own: 'tinytrain devices show {setting.profile}' says which\n"
    keys["provenance"] = sources
    return Target(path=out / f"{setting.profile}.yaml", keys=keys, header=header, dirs=dirs)


def write_setting(
    target: Target,
    found: CalibratedSetting,
    *,
    rows: Sequence[Measurement],
    power: tuple[float, PhaseCalibration] | None,
) -> DeviceProfile:
    """Write the calibrated coefficients, power and record into ``target``; returns the profile as read back."""
    rows_text = f"{found.forward.rows} rows ({', '.join(sorted({row.source for row in rows}))})"
    siblings = f", shrunk to {found.forward.sibling_rows} rows of siblings" if found.forward.sibling_rows else ""
    text = f"fitted to {rows_text}{siblings}; form {found.forward.form}"
    fitted = found.forward.coefficient_intervals
    values: dict[str, Any] = dict(found.coefficients)
    sources = {
        name: {"kind": "derived", "source": text}
        if name in fitted
        else {"kind": "assumed", "source": f"no term of form {found.forward.form}"}
        for name in COEFFICIENTS
    }
    phases = {"forward": found.forward}
    if power is not None:
        values["active_power_w"] = power[0]
        measured = f"energy over time of {power[1].rows} rows ({', '.join(sorted({r.source for r in rows}))})"
        sources["active_power_w"] = {"kind": "measured", "source": measured}
        phases["energy"] = power[1]
        if found.forward.form == "microcontroller":
            values["io_power_w"] = power[0]
            sources["io_power_w"] = {"kind": "derived", "source": "as active_power_w: storage is read by the core"}
    return _write(target, values, sources, phases)


def write_scaled(target: Target, found: ScaledPhase, *, phase: str, rows: Sequence[Measurement]) -> DeviceProfile:
    """Write what one or two rows scale into ``target``; returns the profile as read back."""
    text = "; ".join(sorted({row.source for row in rows}))
    keys = target.keys.get("provenance", {})
    said = {name: keys.get(name, {}).get("source", "") for name in found.coefficients}
    new = f"shape: {target.keys.get('extends', 'as stated before')}; scale: {text}" if phase == "forward" else (
        f"fitted to {len(rows)} whole training steps ({text})"
    )  # fmt: skip
    sources = {
        name: {"kind": "derived", "source": new}
        for name in found.coefficients
        if phase != "forward" or "scale: " not in said[name]
    }
    return _write(target, found.coefficients, sources, {phase: found.record})


def write_training(target: Target, found: CalibratedTraining, *, source: str) -> DeviceProfile:
    """Write the factors of whole training runs into ``target``; returns the profile as read back."""
    text = f"fitted to {found.training.rows} whole training runs ({source})"
    sources = {name: {"kind": "derived", "source": text} for name in found.coefficients}
    for name in ("weight_ns_per_byte", "activation_ns_per_byte", "pass_overhead_us"):
        sources[name] = {"kind": "assumed", "source": "no term of form whole_runs"}
    sources["optimizer_ns_per_weight"] = {"kind": "assumed", "source": "part of the backward factor of whole runs"}
    phases = {"training": found.training}
    if found.training_energy is not None:
        phases["training_energy"] = found.training_energy
    return _write(target, {**found.coefficients, "optimizer_ns_per_weight": 0.0}, sources, phases)


def write_phases(target: Target, found: CalibratedPhases) -> DeviceProfile:
    """Write the factors of training phases into ``target``; returns the profile as read back."""
    sources = {
        name: {"kind": "derived", "source": f"fitted to {count} rows of its phase, shrunk to a wide prior"}
        for name, count in found.num_rows.items()
    }
    return _write(target, found.coefficients, sources, {"training": found.training})


def write_measured_phases(target: Target, found: MeasuredPhases) -> DeviceProfile:
    """Write the forms of training phases measured by themselves into ``target``; returns the profile as read back."""
    source = {"kind": "derived", "source": "fitted to whole passes and layers measured on the device"}
    before = read_profile(target.path, target.dirs).calibration
    priors = {} if before.training is None else before.training.priors
    phases = {"training": found.training.model_copy(update={"priors": priors})}
    if found.forward and before.forward is not None:
        forward = {"form": FORM, "coefficient_intervals": {}, **error_fields(found.forward_errors)}
        phases["forward"] = before.forward.model_copy(update=forward)
    values = {"phases": found.coefficients, **found.forward}
    return _write(target, values, dict.fromkeys(found.forward, source), phases)


def _write(
    target: Target,
    values: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, str]],
    phases: Mapping[str, PhaseCalibration],
) -> DeviceProfile:
    keys = dict(target.keys) | dict(values)
    known = dict(keys.get("provenance", {})) | dict(sources)
    keys["provenance"] = {name: known[name] for name in numeric_fields() if name in known}
    written = {name: found.model_dump(exclude_defaults=True) for name, found in phases.items()}
    keys["calibration"] = {**keys.get("calibration", {}), **written}
    write_profile(target.path, keys, header=target.header)
    try:
        return read_profile(target.path, target.dirs)
    except ProfileError as error:
        raise AssertionError(f"calibration wrote a profile that cannot be read: {error}") from error
