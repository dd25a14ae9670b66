"""A whole file in another unit: times per MAC that no device of the class reaches, or that no sibling comes near."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tinytrain_dist.costs.latency_forms import form_of, group_of
from tinytrain_dist.costs.measurements import UNIT_FACTOR, Measurement, by_setting
from tinytrain_dist.foundation.errors import ProfileError

PLAUSIBLE_NS_PER_MAC = {
    "microcontroller": (0.05, 20_000.0),
    "linux_cpu": (0.0005, 500.0),
    "linux_gpu": (1e-6, 100.0),
}
"""Nanoseconds per MAC of a whole network, by device class; a bound is ten times or more beyond every shipped row."""


PLAUSIBLE_POWER_W = {"microcontroller": (0.0005, 5.0), "linux_cpu": (0.05, 300.0), "linux_gpu": (0.05, 300.0)}
"""Watts that energy over time may say, by device class: outside, one of the two is in another unit."""
PHASE_FACTOR = 100.0
"""A backward MAC this many times slower or faster than a forward MAC of the same device is in another unit."""
_COMPARED_PHASES = ("input_grad", "weight_grad", "fisher")


def check_units(name: str, rows: Sequence[Measurement], *, siblings: Sequence[Measurement] = ()) -> None:
    """Refuse a setting whose rows are all in another unit than milliseconds (and millijoules).

    Parameters
    ----------
    name
        What the message calls the rows: their file.
    siblings
        Rows of other devices: those of the same runtime and precision are compared with.

    Raises
    ------
    ProfileError
        The median time per MAC of a setting is implausible for its class, or 300 times off its siblings'; that of
        backward rows 100 times off its forward rows'; energy over time is no power of the class.
    """
    _check_power(name, rows)
    _check_phases(name, rows, forward=[*rows, *siblings])
    for setting, own in by_setting(row for row in rows if row.phase == "forward" and row.status == "measured").items():
        found = _ns_per_mac(own)
        form = form_of(setting).name
        low, high = PLAUSIBLE_NS_PER_MAC[form]
        if not low <= found <= high:
            raise ProfileError(
                f"{name}, line {own[0].line}: {setting.long_name} takes {found:.3g} ns per MAC (median of {len(own)} "
                f"rows); allowed for {form}: {low:g} to {high:g} (latency_ms in milliseconds?)"
            )
        others = [row for row in siblings if group_of(row.setting) == group_of(setting) and row.setting != setting]
        if others and not 1 / UNIT_FACTOR < found / _ns_per_mac(others) < UNIT_FACTOR:
            raise ProfileError(
                f"{name}, line {own[0].line}: {setting.long_name} takes {found:.3g} ns per MAC, other devices with its "
                f"runtime {_ns_per_mac(others):.3g}; allowed: milliseconds in every row (or siblings=false)"
            )


def _check_power(name: str, rows: Sequence[Measurement]) -> None:
    for row in rows:
        low, high = PLAUSIBLE_POWER_W[form_of(row.setting).name]
        if row.energy_mj is not None and not low <= row.energy_mj / row.latency_ms <= high:
            raise ProfileError(
                f"{name}, line {row.line}: energy_mj over latency_ms of {row.model} is "
                f"{row.energy_mj / row.latency_ms:.3g} W; allowed: {low:g} to {high:g} W (millijoules, milliseconds?)"
            )


def _check_phases(name: str, rows: Sequence[Measurement], *, forward: Sequence[Measurement]) -> None:
    known = by_setting(row for row in forward if row.phase == "forward" and row.status == "measured")
    for phase in _COMPARED_PHASES:
        timed = by_setting(row for row in rows if row.phase == phase and row.status == "measured")
        for setting, own in timed.items():
            ratio = _ns_per_mac(own) / _ns_per_mac(known[setting]) if setting in known else 1.0
            if not 1 / PHASE_FACTOR < ratio < PHASE_FACTOR:
                raise ProfileError(
                    f"{name}, line {own[0].line}: a MAC of {phase} takes {ratio:.3g} times a forward MAC of "
                    f"{setting.long_name} (medians); allowed: {1 / PHASE_FACTOR:g} to {PHASE_FACTOR:g} times "
                    "(latency_ms in milliseconds in every row?)"
                )


def _ns_per_mac(rows: Sequence[Measurement]) -> float:
    return median(row.latency_ms * 1e6 / row.operations.macs for row in rows)
