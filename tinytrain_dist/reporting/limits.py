"""Limits a user sets on top of a device's own memory: RAM, time and energy of one adaptation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tinytrain_dist.foundation.errors import ConfigError

_BYTES = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_JOULES = {"": 1.0, "mj": 1e-3, "j": 1.0, "kj": 1e3, "wh": 3600.0}
_QUANTITY = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one adaptation may take; None: no limit."""

    max_ram_bytes: int | None = None
    max_latency_ms: float | None = None
    max_energy_mj: float | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is limited."""
        return self == Limits()


def num_bytes(text: str, *, option: str) -> int:
    """Return bytes from such as ``262144``, ``256KiB`` or ``0.25MiB``; raises ``ConfigError`` naming ``option``."""
    return round(_quantity(text, _BYTES, option, "a size such as 262144, 256KiB or 1MiB"))


def milliseconds(text: str, *, option: str) -> float:
    """Return milliseconds from such as ``30`` (seconds), ``500ms``, ``2min``; raises ``ConfigError``."""
    return 1e3 * _quantity(text, _SECONDS, option, "a time such as 30, 500ms, 2min or 1h")


def millijoules(text: str, *, option: str) -> float:
    """Return millijoules from such as ``5`` (joules), ``300mJ``, ``2kJ``; raises ``ConfigError``."""
    return 1e3 * _quantity(text, _JOULES, option, "an energy such as 5, 300mJ or 2kJ")


def _quantity(text: str, units: Mapping[str, float], option: str, allowed: str) -> float:
    found = _QUANTITY.fullmatch(text)
    try:
        value = float(found.group(1)) * units[found.group(2).lower()] if found else math.nan
    except (KeyError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{option}: found {text!r}; allowed: {allowed}, above 0")
    return value
