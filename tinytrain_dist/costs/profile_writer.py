"""Profiles as text: one canonical form, so that a calibration that changes nothing changes no byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinytrain_dist.costs.calibration_record import Calibration, PhaseCalibration
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.foundation.errors import ProfileError
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.foundation.strict_yaml import load_yaml

_BREAK_BEFORE = ("clock_hz", "phases", "calibration", "provenance")
_PLAIN_WORDS = ("device_class", "runtime", "precision", "accelerator", "fit_counter", "overhead_per", "name", "extends")
_GROUPED_FROM = 10_000


def own_keys(path: Path) -> dict[str, Any]:
    """Return the keys that file ``path`` itself states; empty where there is no such file."""
    return load_yaml(path, error=ProfileError) if path.is_file() else {}


def header_of(path: Path) -> str:
    """Return the comment lines at the top of ``path``."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    comments = []
    for line in lines:
        if not line.startswith("#"):
            break
        comments.append(line + "\n")
    return "".join(comments)


def write_profile(path: Path, keys: Mapping[str, Any], *, header: str) -> None:
    """Write ``keys`` to ``path``; nothing is written where the text is the same already."""
    text = header + profile_text(keys)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text.encode())


def profile_text(keys: Mapping[str, Any]) -> str:
    """Return the canonical text of a profile's own keys, in the order of the schema."""
    order = ["name", "extends", *(key for key in DeviceProfile.model_fields if key != "name")]
    lines: list[str] = []
    for key in (key for key in order if key in keys):
        if key in _BREAK_BEFORE and lines:
            lines.append("")
        if key == "calibration":
            lines += _calibration_lines(keys[key])
        elif key == "phases":
            lines += ["phases:", *(f"  {phase}: {_value(counts)}" for phase, counts in keys[key].items())]
        elif key == "provenance":
            lines += ["provenance:", *(f"  {name}: {_flow(source)}" for name, source in keys[key].items())]
        else:
            lines.append(f"{key}: {keys[key] if key in _PLAIN_WORDS else _scalar(keys[key])}")
    return "\n".join(lines) + "\n"


def _calibration_lines(phases: Mapping[str, Any]) -> list[str]:
    lines = ["calibration:"]
    for phase in (name for name in Calibration.model_fields if phases.get(name)):
        lines.append(f"  {phase}:")
        found = phases[phase]
        lines += [f"    {key}: {_value(found[key])}" for key in PhaseCalibration.model_fields if key in found]
    return lines


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _scalar(value)


def _flow(source: Mapping[str, str]) -> str:
    return f"{{kind: {source['kind']}, source: {json.dumps(source['source'], ensure_ascii=False)}}}"


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if value >= _GROUPED_FROM else str(value)
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Return a float that YAML 1.1 reads as a float: a point, and a signed exponent."""
    text = repr(value)
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+03d}"
