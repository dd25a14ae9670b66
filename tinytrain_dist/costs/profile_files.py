"""Profiles in YAML files: found by name, read strictly, refused with one clear message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tinytrain_dist.costs.calibration_record import Calibration, PhaseCalibration
from tinytrain_dist.costs.measurements import Setting
from tinytrain_dist.costs.profiles import DeviceProfile, Provenance
from tinytrain_dist.foundation.errors import ProfileError, nearest
from tinytrain_dist.foundation.paths import check_name, inside, resource_folder
from tinytrain_dist.foundation.strict_yaml import load_yaml

_SUFFIX = ".yaml"
MAX_DEPTH = 4


def _folders(dirs: Sequence[str | Path]) -> list[Path]:
    folders = [Path(folder).expanduser() for folder in dirs]
    for folder in folders:
        if not folder.is_dir():
            raise ProfileError(f"profile folder {str(folder)!r}: no such folder")
    return [*folders, resource_folder("device_profiles")]


def profile_names(dirs: Sequence[str | Path] = ()) -> list[str]:
    """Return the names of all profiles, sorted: the user's folders ``dirs`` and the shipped one."""
    return sorted({path.stem for folder in _folders(dirs) for path in folder.glob(f"*{_SUFFIX}")})


def load_profile(name: str, dirs: Sequence[str | Path] = ()) -> DeviceProfile:
    """Return profile ``name``; a user's folder goes before the shipped profiles.

    ``<device>--<runtime>--<precision>--t<threads>--<accelerator>`` of a device's default setting, with its power mode
    or without, names the profile ``<device>`` too.

    Raises
    ------
    ProfileError
        Unknown or unsafe name (a path is no name), a link out of the folder, or a file that breaks the schema.
    """
    path = profile_path(name, dirs)
    if path is not None:
        return read_profile(path, dirs)
    device = name.split("--", 1)[0]
    path = profile_path(device, dirs) if device != name else None
    if path is not None:
        default = read_profile(path, dirs)
        bare = setting_of(default)
        if name in (bare.long_name, replace(bare, power_mode=default.power_mode or "").long_name):
            return default
    raise ProfileError(f"unknown device profile {name!r}; {nearest(name, profile_names(dirs))}")


def profile_path(name: str, dirs: Sequence[str | Path] = ()) -> Path | None:
    """Return the file of profile ``name``, ``None`` where there is none; raises ``ProfileError`` for unsafe names."""
    check_name(name, what="device profile", error=ProfileError)
    for folder in _folders(dirs):
        path = inside(folder, name + _SUFFIX, what="device profile", error=ProfileError)
        if path.is_file():
            return path
    return None


def setting_of(profile: DeviceProfile) -> Setting:
    """Return the setting a profile stands for, whatever its power mode."""
    return Setting(
        profile=profile.name.split("--", 1)[0],
        runtime=profile.runtime,
        precision=profile.precision,
        threads=profile.threads,
        accelerator=profile.accelerator,
    )


def load_profiles(dirs: Sequence[str | Path] = ()) -> list[DeviceProfile]:
    """Return every profile, by name."""
    return [load_profile(name, dirs) for name in profile_names(dirs)]


def read_profile(path: Path, dirs: Sequence[str | Path] = ()) -> DeviceProfile:
    """Return the profile in file ``path``; raises ``ProfileError`` naming file, key, what was found and allowed.

    ``extends: NAME`` takes over what the file itself does not state from profile ``NAME`` (its own folder, then
    ``dirs``, then the shipped ones); a calibration is never inherited.
    """
    raw = merged(path, [path.parent, *dirs])
    try:
        profile = DeviceProfile.model_validate(raw)
    except ValidationError as exc:
        problems = "; ".join(_describe(dict(error)) for error in exc.errors(include_url=False))
        raise ProfileError(f"{path}: {problems}") from exc
    if profile.name != path.stem:
        raise ProfileError(f"{path}: key 'name': found {profile.name!r}; allowed: {path.stem!r}, the file's own name")
    return profile


def merged(path: Path, dirs: Sequence[str | Path] = (), *, depth: int = 0) -> dict[str, Any]:
    """Return the keys of ``path`` over those of the profile it extends.

    A number that ``path`` changes does not keep the source of the number it replaces.
    """
    own = dict(_cached_yaml(path, path.stat().st_mtime_ns if path.is_file() else 0))
    parent = own.pop("extends", None)
    if parent is None:
        return own
    if not isinstance(parent, str) or depth >= MAX_DEPTH:
        raise ProfileError(
            f"{path}: key 'extends': found {parent!r}; allowed: the name of a profile, at most {MAX_DEPTH} deep"
        )
    found = profile_path(parent, dirs)
    if found == path:
        raise ProfileError(f"{path}: key 'extends': found {parent!r}, the profile itself; allowed: another profile")
    if found is None:
        raise ProfileError(f"{path}: key 'extends': unknown profile {parent!r}; {nearest(parent, profile_names(dirs))}")
    base = merged(found, dirs, depth=depth + 1)
    base.pop("calibration", None)
    sources, inherited = own.get("provenance", {}), base.get("provenance", {})
    if not isinstance(sources, dict) or not isinstance(inherited, dict):
        return base | own
    kept = {name: source for name, source in inherited.items() if name not in own or own[name] == base.get(name)}
    return base | own | {"provenance": {**kept, **sources}}


@lru_cache(maxsize=256)
def _cached_yaml(path: Path, changed_ns: int) -> dict[str, Any]:
    return load_yaml(path, error=ProfileError)


def _describe(error: Mapping[str, Any]) -> str:
    location = [str(part) for part in error["loc"]]
    if not location:
        return str(error["ctx"]["error"])
    model, key = _owner(location)
    shown = ".".join(location)
    if error["type"] == "extra_forbidden":
        return f"unknown key {shown!r}; {nearest(key, model.model_fields)}"
    field = model.model_fields.get(key)
    allowed = field.description if field and field.description else "a mapping of kind and source"
    if error["type"] == "missing":
        return f"key {shown!r}: missing; allowed: {allowed}"
    if error["type"] == "value_error":
        return f"key {shown!r}: {error['ctx']['error']}"
    return f"key {shown!r}: found {error['input']!r}; allowed: {allowed}"


def _owner(location: list[str]) -> tuple[type[BaseModel], str]:
    """Return the model a failing key belongs to, and the key."""
    if location[0] == "provenance" and len(location) > 2:
        return Provenance, location[-1]
    if location[0] == "calibration" and len(location) > 1:
        return (Calibration, location[1]) if len(location) == 2 else (PhaseCalibration, location[2])
    return DeviceProfile, location[0]
