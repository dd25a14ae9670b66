"""What a fleet needs per day: energy, battery life, and how far its devices fall behind; prices with their interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.foundation.errors import DataError, ProfileError, nearest
from tinytrain_dist.reporting.admissible import admissible, why_not
from tinytrain_dist.reporting.comparison import ADAPTATION, ComparisonRow, joined
from tinytrain_dist.reporting.comparison_row import EXTRAPOLATED
from tinytrain_dist.reporting.fleet_mix import Part
from tinytrain_dist.reporting.queueing import backlog
from tinytrain_dist.reporting.runs import RunResults

SECONDS_PER_DAY = 86_400.0
MJ_PER_WH = 3.6e6
INTERVAL_NOTE = (
    "Intervals are the price model's own (90 %), its ends taken as common to all tasks and all devices: they add up, "
    "which is the cautious reading. Backlog: M/G/1, one task at a time, Poisson arrivals, service times drawn from the "
    "run's tasks, 200,000 arrivals simulated with a fixed seed; p99 of the unfinished work an arrival finds."
)


@dataclass(frozen=True, kw_only=True)
class FleetRow:
    """One part of the fleet, or its total (``device`` ``TOTAL``). Energies are per day and of all its devices.

    ``adaptations_per_day`` are those asked for, ``adaptations_done_per_day`` those a device gets done; per device,
    of the total over all devices. ``idle_included``: whether the power between adaptations is known and in the
    figures. ``battery_days`` None: mains, or unknown power. ``backlog_p99_ms`` None: falls behind for ever
    (``utilisation`` of 1 or more, the busy share if it did all that is asked); its energy is of what it gets done.
    """

    device: str
    count: int
    method: str | None
    variant: str | None
    accuracy_mean: float | None
    fits_share: float | None
    adaptations_per_day: float
    adaptations_done_per_day: float
    energy_wh_per_day: float | None
    energy_low_wh_per_day: float | None
    energy_high_wh_per_day: float | None
    idle_included: bool | None
    battery_wh: float | None
    battery_days: float | None
    battery_low_days: float | None
    battery_high_days: float | None
    utilisation: float | None
    backlog_p99_ms: float | None
    backlog_low_ms: float | None
    backlog_high_ms: float | None
    standing: str
    extrapolated: str
    extrapolated_share: float | None
    accuracy_numerics: str
    price_numerics: str
    batch: str
    numerics_differ: bool


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The parts in the order of the mix, then the total; and what has to be said."""

    rows: list[FleetRow]
    notes: list[str]


def fleet(run: RunResults, rows: Sequence[ComparisonRow], mix: Sequence[Part], dirs: Sequence[str] = ()) -> Fleet:
    """Return what the fleet of ``mix`` needs; ``rows`` are the run's lines by device.

    Raises
    ------
    DataError
        The mix names a device or method the run has no rows of.
    """
    lines = [_line(rows, part) for part in mix]
    found = [_part(run, line, part, dirs) for line, part in zip(lines, mix, strict=True)]
    notes = [f"NOTE: {r.device}: power between adaptations is unknown and not counted; give column idle_w."
             for r in found if r.idle_included is False and r.energy_wh_per_day is not None]  # fmt: skip
    notes += [f"NOTE: {r.device}: power is unknown: no energy." for r in found if r.energy_wh_per_day is None]
    notes += [_behind(r) for r in found if r.utilisation is not None and r.utilisation >= 1]
    notes += [f"NOTE: {part.device}: {line.method} does not certainly fit every task ({why_not(line, rows)})."
              for line, part in zip(lines, mix, strict=True) if why_not(line, rows)]  # fmt: skip
    return Fleet(rows=[*found, _total(found)], notes=[*dict.fromkeys(notes), INTERVAL_NOTE])


def _behind(row: FleetRow) -> str:
    share = row.utilisation or 1.0
    return (f"NOTE: {row.device} falls behind for ever: busy {100 * share:.0f} % of the time if it did all that is "
            f"asked; its energy and battery life are of the {row.adaptations_done_per_day:,.4g} a day "
            "it gets done.")  # fmt: skip


def _line(rows: Sequence[ComparisonRow], part: Part) -> ComparisonRow:
    where = f"the mix, line {part.line}"
    here = [row for row in rows if row.device is not None and part.device in (row.device, _base(row.device))]
    if not here:
        known = sorted({str(row.device) for row in rows if row.device})
        raise DataError(f"{where}: device {part.device!r} is not in the run; {nearest(part.device, known)}")
    if part.method is None:
        fitting = [row for row in admissible(rows) if row in here]
        if not fitting:
            raise DataError(f"{where}: no method certainly fits {part.device!r}; name one in column 'method'")
        return max(fitting, key=lambda row: (row.accuracy_mean or 0.0, -(row.latency_p50_ms or 0.0)))
    named = [row for row in here if row.method == part.method and part.variant in (None, row.variant)]
    if not named:
        raise DataError(f"{where}: no rows of method {part.method!r} on {part.device!r}; "
                        f"{nearest(part.method, {row.method for row in here})}")  # fmt: skip
    if len(named) > 1:
        variants = ", ".join(sorted({row.variant for row in named}))
        raise DataError(f"{where}: {part.method!r} is there in several variants; name one in 'variant': {variants}")
    return named[0]


def _base(device: str) -> str:
    """Return the device of a what-if with another RAM: ``stm32f746 [RAM 256 KiB]`` is a ``stm32f746``."""
    return device.split(" [", 1)[0]


def _part(run: RunResults, row: ComparisonRow, part: Part, dirs: Sequence[str]) -> FleetRow:
    prices = _prices(run, row)
    idle = part.idle_w if part.idle_w is not None else _idle_power(part.device, dirs)
    busy = _mean(prices["latency_ms"]) * part.adaptations_per_day / 1e3
    idle_wh = None if idle is None else idle * max(0.0, SECONDS_PER_DAY - busy) / 3600.0
    daily = [_daily_wh(prices, end, part, idle_wh) for end in ("", "_low", "_high")]
    known = [wh for wh in daily if wh is not None]
    daily[1:] = [min(known), max(known)] if len(known) == 3 else daily[1:]  # a full day's work: power alone decides
    lives = [None if wh is None or part.battery_wh is None or wh == 0 else part.battery_wh / wh for wh in daily]
    seed = "/".join(str(value) for value in (row.device, row.method, row.variant))
    queues = [backlog(prices[name], arrivals_per_day=part.adaptations_per_day, seed=seed)
              for name in ("latency_ms", "latency_low_ms", "latency_high_ms")]  # fmt: skip
    total = [None if wh is None else wh * part.count for wh in daily]
    return FleetRow(
        device=part.device, count=part.count, method=row.method, variant=row.variant,
        accuracy_mean=row.accuracy_mean, fits_share=row.fits_share, adaptations_per_day=part.adaptations_per_day,
        adaptations_done_per_day=part.adaptations_per_day / max(1.0, queues[0].utilisation),
        energy_wh_per_day=total[0], energy_low_wh_per_day=total[1], energy_high_wh_per_day=total[2],
        idle_included=idle is not None, battery_wh=part.battery_wh,
        battery_days=lives[0], battery_low_days=lives[2], battery_high_days=lives[1],
        utilisation=queues[0].utilisation, backlog_p99_ms=queues[0].p99_ms, backlog_low_ms=queues[1].p99_ms,
        backlog_high_ms=queues[2].p99_ms, standing=row.standing, extrapolated=row.extrapolated,
        extrapolated_share=row.extrapolated_share, accuracy_numerics=row.accuracy_numerics,
        price_numerics=row.price_numerics, batch=row.batch, numerics_differ=row.numerics_differ,
    )  # fmt: skip


def _prices(run: RunResults, row: ComparisonRow) -> dict[str, list[float]]:
    """Return the prices of every task with a plan, one list per column, sorted; empty where none is known."""
    names = [f"{phase}{end}_{unit}" for phase, unit in (("latency", "ms"), ("energy", "mj"))
             for end in ("", "_low", "_high")]  # fmt: skip
    same = " AND ".join(f"{name} IS NOT DISTINCT FROM ?" for name in ("device", *ADAPTATION))
    lists = ", ".join(f"coalesce(list({name} ORDER BY {name}) FILTER ({name} IS NOT NULL), []) AS {name}"
                      for name in names)  # fmt: skip
    values = [row.device, *(getattr(row, name) for name in ADAPTATION)]
    found: dict[str, Any] = run.select(f"SELECT {lists} FROM rows WHERE planned AND {same}", values)[0]
    if not found["latency_ms"]:
        raise DataError(f"{row.device}: {row.method} has no priced task in the run")
    return found


def _daily_wh(prices: dict[str, list[float]], end: str, part: Part, idle_wh: float | None) -> float | None:
    """Return the energy of what a device gets done in a day: one that falls behind works all day and no longer."""
    energies = prices[f"energy{end}_mj"]
    if not energies:
        return None
    busy = _mean(prices[f"latency{end}_ms"] or prices["latency_ms"]) * part.adaptations_per_day / 1e3
    done = part.adaptations_per_day * min(1.0, SECONDS_PER_DAY / busy) if busy else part.adaptations_per_day
    return _mean(energies) * done / MJ_PER_WH + (idle_wh or 0.0)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _idle_power(device: str, dirs: Sequence[str]) -> float | None:
    try:
        return load_profile(device, dirs).idle_power_w
    except ProfileError:  # a profile that is gone: the stored prices do not need it
        return None


def _total(rows: list[FleetRow]) -> FleetRow:
    def summed(name: str) -> float | None:
        values = [getattr(row, name) for row in rows]
        return None if any(value is None for value in values) else float(sum(values))

    outside = sorted({name for row in rows for name in row.extrapolated.split(", ") if name})
    return FleetRow(
        device="TOTAL", count=sum(row.count for row in rows), method=None, variant=None, accuracy_mean=None,
        fits_share=None,
        adaptations_per_day=sum(row.count * row.adaptations_per_day for row in rows),
        adaptations_done_per_day=sum(row.count * row.adaptations_done_per_day for row in rows),
        energy_wh_per_day=summed("energy_wh_per_day"), energy_low_wh_per_day=summed("energy_low_wh_per_day"),
        energy_high_wh_per_day=summed("energy_high_wh_per_day"), idle_included=None, battery_wh=None,
        battery_days=None, battery_low_days=None, battery_high_days=None, utilisation=None, backlog_p99_ms=None,
        backlog_low_ms=None, backlog_high_ms=None,
        standing="+".join(sorted({word for row in rows for word in row.standing.split(", ")[0].split("+") if word}))
        + (f", {EXTRAPOLATED}" if outside else ""),
        extrapolated=", ".join(outside), extrapolated_share=None,
        **{name: joined(rows, name) for name in ("accuracy_numerics", "price_numerics", "batch")},
        numerics_differ=any(row.numerics_differ for row in rows),
    )  # fmt: skip
