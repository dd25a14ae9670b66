"""The 90 % intervals of times and energies, part by part.

What computes is as uncertain as the calibration of its phase; what waits for storage as uncertain as the bandwidth,
and swapping also as the peak memory: the low end swaps what is missing at the low end of the peak, the high end what
is missing at its high end. The parts' ends add up: whatever makes one part slow may make the others slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytrain_dist.costs.calibration_record import ESTIMATE_FACTOR
from tinytrain_dist.costs.energy import PhaseTimes, powers_w
from tinytrain_dist.costs.extrapolation import FAR, Phase, widened
from tinytrain_dist.costs.profiles import DeviceProfile

PUBLISHED_POWER_FACTOR = 1.2
"""Interval of a power that was measured (a published mean) without rows of its own."""
_KNOWN = ("measured", "derived")


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Both ends of an adaptation's time and energy (numbers or vectors); no energy where the power is unknown."""

    latency_low_ms: Any
    latency_high_ms: Any
    energy_low_mj: Any
    energy_high_mj: Any


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Interval factors of the parts of one phase: time and energy, computing and waiting for storage.

    Numbers, or vectors with one element per cell.
    """

    compute_time: Any
    storage_time: Any
    compute_energy: Any
    storage_energy: Any


def interval_factor(profile: DeviceProfile, *, phase: Phase = "training") -> float:
    """Return the factor ``f`` of the 90 % interval ``[v / f, v * f]`` of a time on ``profile``; 2 for an estimate.

    ``forward``: passes without any backward (prototypes, inference). ``training``: anything with a backward pass.
    """
    found = profile.calibration.forward if phase == "forward" else profile.calibration.training
    return ESTIMATE_FACTOR if found is None else found.interval_factor


def combined_factor(profile: DeviceProfile, *, phase: Phase) -> float:
    """Return the interval factor of power and time together; an estimate stays within 2 as a whole.

    Energy is power times time, so their intervals add in squares of logarithms. Power that nobody measured on this
    device may itself be half or double; measured power without rows of its own is trusted within 20 %. Rows of whole
    training runs that state energy give the factor directly.
    """
    time, direct = getattr(profile.calibration, phase), profile.calibration.training_energy
    if phase == "training" and direct is not None:
        return direct.interval_factor
    if time is None:
        return ESTIMATE_FACTOR
    return _hypot(time.interval_factor, _power_factor(profile))


def _power_factor(profile: DeviceProfile) -> float:
    if profile.calibration.energy is not None:
        return profile.calibration.energy.interval_factor
    measured = profile.provenance_of("active_power_w").kind == "measured"
    return PUBLISHED_POWER_FACTOR if measured else ESTIMATE_FACTOR


def _hypot(first: float, second: float) -> float:
    return math.exp(math.hypot(math.log(first), math.log(second)))


def factors(profile: DeviceProfile, *, phase: Phase, farthest: Any = 1.0) -> Factors:
    """Return the factors at ``farthest`` times the measured range (a number or a vector).

    A bandwidth that is assumed may be half or double; one that was fitted to the rows of the phase is as good as
    these rows, and knows no more of a network far from them than an estimate does.
    """
    time = widened(interval_factor(profile, phase=phase), farthest)
    energy = widened(combined_factor(profile, phase=phase), farthest)
    waiting, waiting_energy = (widened(factor(profile, phase=phase), np.minimum(farthest, FAR))
                               for factor in (interval_factor, combined_factor))  # fmt: skip
    is_known = profile.provenance_of("storage_bandwidth_bytes_per_s").kind in _KNOWN
    least = 1.0 if is_known else ESTIMATE_FACTOR
    return Factors(
        compute_time=time, storage_time=np.maximum(waiting, least),
        compute_energy=energy, storage_energy=np.maximum(waiting_energy, least),
    )  # fmt: skip


def spans(times: PhaseTimes, swap_ms: tuple[Any, Any], profile: DeviceProfile, found: Factors) -> Spans:
    """Return both ends of time and energy; ``swap_ms``: swapping at either end of the peak memory."""
    compute = times.selection_ms + times.training_ms
    low_ms, high_ms = (times.load_ms + swap for swap in swap_ms)
    powers = powers_w(profile)
    energy_low = energy_high = None
    if powers is not None:
        busy, waiting = (powers[0] * compute), powers[1]
        energy_low = busy / found.compute_energy + waiting * low_ms / found.storage_energy
        energy_high = busy * found.compute_energy + waiting * high_ms * found.storage_energy
    return Spans(
        latency_low_ms=compute / found.compute_time + low_ms / found.storage_time,
        latency_high_ms=compute * found.compute_time + high_ms * found.storage_time,
        energy_low_mj=energy_low,
        energy_high_mj=energy_high,
    )
