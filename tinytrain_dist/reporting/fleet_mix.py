"""The mix of a fleet from a CSV file: device, count, and what each device is asked to do and runs on."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from tinytrain_dist.foundation.errors import ConfigError, DataError, nearest

REQUIRED = ("device", "count")
OPTIONAL = ("method", "variant", "adaptations_per_day", "battery_wh", "idle_w")
MAX_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Part:
    """One line of the mix.

    Attributes
    ----------
    count
        Devices of this kind.
    method, variant
        What they run; None: the most accurate method that certainly fits.
    adaptations_per_day
        Mean per device.
    battery_wh
        Usable energy of the battery; None: mains.
    idle_w
        Power between adaptations; None: the profile's, or unknown.
    """

    line: int
    device: str
    count: int
    method: str | None = None
    variant: str | None = None
    adaptations_per_day: float
    battery_wh: float | None = None
    idle_w: float | None = None


def read_mix(path: Path, *, adaptations_per_day: float) -> list[Part]:
    """Read the mix; raises ``DataError`` naming file, line and column of what is wrong.

    ``adaptations_per_day`` holds where the file has no such column or an empty cell.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES} bytes; a mix has a line per kind of device")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"{path}: cannot be read: {exc}") from exc
    reader = csv.DictReader(io.StringIO(text))
    names = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = names
    for name in REQUIRED:
        if name not in names:
            raise DataError(f"{path}: column {name!r} is missing; allowed: {', '.join(REQUIRED + OPTIONAL)}")
    for name in names:
        if name not in REQUIRED + OPTIONAL:
            raise DataError(f"{path}: unknown column {name!r}; {nearest(name, REQUIRED + OPTIONAL)}")
    parts = [_part(path, reader.line_num, row, adaptations_per_day) for row in reader]
    if not parts:
        raise DataError(f"{path}: no line below the header")
    return parts


def _part(path: Path, line: int, row: dict[str, str | None], per_day: float) -> Part:
    cells = {name: (value or "").strip() for name, value in row.items() if name is not None}
    if None in row:
        raise DataError(f"{path}: line {line}: more cells than the header has columns")
    if not cells["device"]:
        raise DataError(f"{path}: line {line}: column 'device': empty; allowed: a device of the run")
    asked = _number(path, line, cells, "adaptations_per_day")
    return Part(
        line=line,
        device=cells["device"],
        count=_count(path, line, cells["count"]),
        method=cells.get("method") or None,
        variant=cells.get("variant") or None,
        adaptations_per_day=per_day if asked is None else asked,
        battery_wh=_number(path, line, cells, "battery_wh", above_zero=True),
        idle_w=_number(path, line, cells, "idle_w"),
    )


def _count(path: Path, line: int, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise DataError(f"{path}: line {line}: column 'count': found {text!r}; allowed: a whole number of 1 or more")
    return int(text)


def _number(path: Path, line: int, cells: dict[str, str], name: str, *, above_zero: bool = False) -> float | None:
    text = cells.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (value > 0 if above_zero else value >= 0) or value == float("inf"):
        allowed = "a number above 0, or empty (mains)" if above_zero else "a number of 0 or more, or empty"
        raise DataError(f"{path}: line {line}: column {name!r}: found {text!r}; allowed: {allowed}")
    return value


def check_per_day(value: float) -> float:
    """Return the adaptations per day of the option; raises ``ConfigError`` where they are negative or no number."""
    if not 0 <= value < float("inf"):
        raise ConfigError(f"--per-day: found {value}; allowed: a number of 0 or more")
    return value
