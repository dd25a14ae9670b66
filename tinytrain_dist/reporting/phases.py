"""Where a device's time and energy go: loading, selection, training, swapping; means over tasks: they add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinytrain_dist.reporting.comparison import ADAPTATION
from tinytrain_dist.reporting.exact_sums import mean_sql
from tinytrain_dist.reporting.runs import RunResults

PHASES = ("load", "selection", "training", "swap")
_UNITS = ("ms", "mj")


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Mean cost of each of ``PHASES`` on one device, and the price model's interval of the sum; ms or mJ.

    ``domain`` is None over all domains. ``energy`` is None where the device's power is unknown.
    """

    domain: str | None
    device: str
    key: tuple[str | None, ...]
    num: int
    latency: tuple[float, ...]
    latency_ends: tuple[float | None, float | None]
    energy: tuple[float, ...] | None
    energy_ends: tuple[float | None, float | None] | None


def breakdowns(run: RunResults) -> list[Breakdown]:
    """Return the mean breakdown per (domain, device, adaptation) and per (device, adaptation) over all domains."""
    group = f"device, {', '.join(ADAPTATION)}"
    names = [f"{phase}_{unit}" for unit in _UNITS for phase in PHASES]
    names += [
        f"{total}_{end}_{unit}" for total, unit in (("latency", "ms"), ("energy", "mj")) for end in ("low", "high")
    ]
    found = run.select(
        f"SELECT grouping(domain) AS pooled, domain, {group}, count(*) AS num,"
        f" {', '.join(mean_sql(name, name) for name in names)}"
        " FROM rows WHERE planned AND device IS NOT NULL AND latency_ms IS NOT NULL"
        f" GROUP BY GROUPING SETS ((domain, {group}), ({group})) ORDER BY pooled, domain, {group}"
    )
    return [_breakdown(row) for row in found if row["training_ms"] is not None]


def _breakdown(row: dict[str, Any]) -> Breakdown:
    powered = row["training_mj"] is not None
    return Breakdown(
        domain=None if row["pooled"] else row["domain"],
        device=row["device"],
        key=tuple(row[name] for name in ADAPTATION),
        num=row["num"],
        latency=tuple(row[f"{phase}_ms"] for phase in PHASES),
        latency_ends=(row["latency_low_ms"], row["latency_high_ms"]),
        energy=tuple(row[f"{phase}_mj"] for phase in PHASES) if powered else None,
        energy_ends=(row["energy_low_mj"], row["energy_high_mj"]) if powered else None,
    )
