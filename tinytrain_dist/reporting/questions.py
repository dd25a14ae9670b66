"""What a planner asks of a run, and the devices a what-if is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.reporting.fleet_mix import Part
from tinytrain_dist.reporting.formatting import memory
from tinytrain_dist.reporting.intervals import IntervalKind
from tinytrain_dist.reporting.limits import Limits, millijoules, milliseconds, num_bytes
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.what_if import power_mode_profiles, profile_dirs, run_profiles, with_ram
from tinytrain_dist.reporting.what_if_cells import Target

WHAT_IF_KEYS = ("device", "ram", "max_ram", "power_mode", "max_seconds", "max_joules")


@dataclass(frozen=True, kw_only=True)
class WhatIfQuestion:
    """``ram_bytes`` replaces a device's RAM, ``max_ram_bytes`` only lowers it; both change what TinyTrain chooses."""

    devices: tuple[str, ...] = ()
    ram_bytes: int | None = None
    max_ram_bytes: int | None = None
    power_mode: str | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def changes_devices(self) -> bool:
        """Return whether anything has to be priced anew; limits on time and energy only judge stored prices."""
        return bool(self.devices or self.ram_bytes or self.max_ram_bytes or self.power_mode)


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Sections of the answer; what is None or empty is not answered. Nothing asked: fits, fronts and runner-up."""

    what_if: WhatIfQuestion | None = None
    limits: Limits = field(default_factory=Limits)
    pareto: tuple[str, ...] = ()
    smallest: bool = False
    min_accuracy: float | None = None
    within_ms: float | None = None
    within_mj: float | None = None
    mix: tuple[Part, ...] = ()
    interval: IntervalKind = "t"

    @property
    def is_overview(self) -> bool:
        """Return whether nothing was asked for by name."""
        return not (self.pareto or self.smallest or self.within_ms or self.within_mj or self.mix)


def what_if_question(words: Sequence[str]) -> WhatIfQuestion:
    """Read ``device=a,b ram=256KiB max_seconds=60``; raises ``ConfigError`` naming the key."""
    values: dict[str, str] = {}
    for word in words:
        key, found, value = word.partition("=")
        if key not in WHAT_IF_KEYS:
            raise ConfigError(f"--what-if: unknown key {key!r}; {nearest(key, WHAT_IF_KEYS)}")
        if not found or not value or key in values:
            raise ConfigError(f"--what-if {word}: allowed: {key}=VALUE, once")
        values[key] = value
    if not values:
        raise ConfigError(f"--what-if: nothing given; allowed: KEY=VALUE of {', '.join(WHAT_IF_KEYS)}")
    sizes = {key: num_bytes(values[key], option=f"--what-if {key}") for key in ("ram", "max_ram") if key in values}
    return WhatIfQuestion(
        devices=tuple(dict.fromkeys(name for name in values.get("device", "").split(",") if name)),
        ram_bytes=sizes.get("ram"),
        max_ram_bytes=sizes.get("max_ram"),
        power_mode=values.get("power_mode"),
        limits=Limits(
            max_latency_ms=milliseconds(values["max_seconds"], option="--what-if max_seconds")
            if "max_seconds" in values else None,
            max_energy_mj=millijoules(values["max_joules"], option="--what-if max_joules")
            if "max_joules" in values else None,
        ),
    )  # fmt: skip


def merged_limits(first: Limits, second: Limits) -> Limits:
    """Return the tighter of two limits, one by one."""
    pairs = {name: [v for v in (getattr(first, name), getattr(second, name)) if v is not None]
             for name in Limits.__dataclass_fields__}  # fmt: skip
    return replace(first, **{name: min(values) if values else None for name, values in pairs.items()})


def targets_of(run: RunResults, question: WhatIfQuestion) -> tuple[list[Target], list[str]]:
    """Return the devices a question is about (those of the run where it names none), and notes on their profiles."""
    dirs = profile_dirs(run)
    notes: list[str] = []
    if question.devices:
        profiles = [load_profile(name, dirs) for name in question.devices]
    elif question.power_mode is not None:
        profiles = power_mode_profiles(run, question.power_mode)
    else:
        profiles, notes = run_profiles(run)
    if question.devices and question.power_mode is not None:
        profiles = [profile for profile in profiles if profile.power_mode == question.power_mode]
        if not profiles:
            raise ConfigError(
                f"--what-if power_mode={question.power_mode}: no profile named by device= is in that mode"
            )
    targets = []
    for profile in profiles:
        ram = question.ram_bytes or profile.ram_bytes
        ram = min(ram, question.max_ram_bytes or ram)
        changed = ram != profile.ram_bytes
        label = f"{profile.name} [RAM {memory(ram)}]" if changed else profile.name
        own = with_ram(profile, ram_bytes=ram) if changed else profile
        targets.append(Target(profile=own, label=label, device=profile.name))
    return targets, notes
