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


def check_units(name: str, rows: Sequence[Measurement], *, siblings: Sequence[Measurement] = ()) -> None:
    """Refuse a setting whose forward rows are all in another unit than milliseconds.

    Parameters
    ----------
    name
        What the message calls the rows: their file.
    siblings
        Rows of other devices: those of the same runtime and precision are compared with.

    Raises
    ------
    ProfileError
        The median time per MAC of a setting is implausible for its class, or 300 times off its siblings'.
    """
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


def _ns_per_mac(rows: Sequence[Measurement]) -> float:
    return median(row.latency_ms * 1e6 / row.operations.macs for row in rows)
