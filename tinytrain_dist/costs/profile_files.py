"""Profiles in YAML files: found by name, read strictly, refused with one clear message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tinytrain_dist.costs.profiles import DeviceProfile, Provenance
from tinytrain_dist.foundation.errors import ProfileError, nearest
from tinytrain_dist.foundation.paths import check_name, inside, resource_folder
from tinytrain_dist.foundation.strict_yaml import load_yaml

_SUFFIX = ".yaml"


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

    Raises
    ------
    ProfileError
        Unknown or unsafe name (a path is no name), a link out of the folder, or a file that breaks the schema.
    """
    check_name(name, what="device profile", error=ProfileError)
    for folder in _folders(dirs):
        path = inside(folder, name + _SUFFIX, what="device profile", error=ProfileError)
        if path.is_file():
            return read_profile(path)
    raise ProfileError(f"unknown device profile {name!r}; {nearest(name, profile_names(dirs))}")


def load_profiles(dirs: Sequence[str | Path] = ()) -> list[DeviceProfile]:
    """Return every profile, by name."""
    return [load_profile(name, dirs) for name in profile_names(dirs)]


def read_profile(path: Path) -> DeviceProfile:
    """Return the profile in file ``path``; raises ``ProfileError`` naming file, key, what was found and allowed."""
    raw = load_yaml(path, error=ProfileError)
    try:
        profile = DeviceProfile.model_validate(raw)
    except ValidationError as exc:
        problems = "; ".join(_describe(dict(error)) for error in exc.errors(include_url=False))
        raise ProfileError(f"{path}: {problems}") from exc
    if profile.name != path.stem:
        raise ProfileError(f"{path}: key 'name': found {profile.name!r}; allowed: {path.stem!r}, the file's own name")
    return profile


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
    nested = location[0] == "provenance" and len(location) > 2
    return (Provenance if nested else DeviceProfile), location[-1] if nested else location[0]
