"""What the lines of a table are grouped by: device, domain, way, shot, or several of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tinytrain_dist.foundation.errors import ConfigError, nearest

By = Literal["device", "domain", "method", "way", "shot", "resolution", "mode"]
BY_CHOICES: tuple[By, ...] = ("device", "domain", "method", "way", "shot", "resolution", "mode")
PLACES = ("device", "domain", "way", "shot", "resolution", "mode")
"""Fields a line may be placed by; ``method`` groups by the adaptation alone."""

_WAY_BANDS = ((2, 4), (5, 9), (10, 19), (20, 34), (35, 50))
_SHOT_BANDS = ((1, 1), (2, 4), (5, 9), (10, 19), (20, 100))
MAX_EXACT = 8
"""So many distinct ways or shots are shown as they are; more are gathered in bands."""


def places_of(by: str | Sequence[str]) -> tuple[str, ...]:
    """Return the fields to place lines by, from ``device`` or ``device,domain``; raises ``ConfigError``."""
    words = [word.strip() for word in by.split(",")] if isinstance(by, str) else list(by)
    for word in words:
        if word not in BY_CHOICES:
            raise ConfigError(f"--by: unknown {word!r}; {nearest(word, BY_CHOICES)}")
    if len(set(words)) != len(words):
        raise ConfigError(f"--by: found {', '.join(words)}; allowed: none twice")
    return tuple(word for word in words if word != "method")


def place_sql(name: str) -> str:
    """Return the expression of one place; a failed row does not know its episode and takes that of its task."""
    if name == "way":
        return _banded("way", "max(way) OVER (PARTITION BY task_id)", _WAY_BANDS)
    if name == "shot":
        shot = "CASE WHEN support_size > 0 THEN round(support_size / way)::BIGINT END"
        return _banded("shot", f"max({shot}) OVER (PARTITION BY task_id)", _SHOT_BANDS)
    return f"{name}::VARCHAR" if name in ("resolution",) else name


def _banded(name: str, value: str, bands: tuple[tuple[int, int], ...]) -> str:
    """Return the value itself as text where a run has few of them, else the band it lies in."""
    counted = "support_size / way" if name == "shot" else "way"
    few = f"(SELECT count(DISTINCT round({counted})) FROM rows WHERE support_size > 0) <= {MAX_EXACT}"
    cases = " ".join(
        f"WHEN {value} <= {high} THEN '{low}-{high}'" if low != high else f"WHEN {value} <= {high} THEN '{low}'"
        for low, high in bands
    )
    return f"CASE WHEN {few} THEN ({value})::VARCHAR {cases} ELSE '>{bands[-1][1]}' END"
