"""Energy: power of what the device does in a phase x the time of the phase (W x ms = mJ).

Microcontroller: active power everywhere. Linux board: active power while it computes, I/O power while it loads
or swaps. A device whose power nobody measured has no energy, rather than a guessed one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinytrain_dist.costs.calibration_record import ESTIMATE_FACTOR
from tinytrain_dist.costs.latency import Phase
from tinytrain_dist.costs.profiles import DeviceProfile


@dataclass(frozen=True, kw_only=True)
class PhaseTimes:
    """Milliseconds per phase of one adaptation."""

    load_ms: float
    selection_ms: float
    training_ms: float
    swap_ms: float

    @property
    def total_ms(self) -> float:
        """Sum of the phases."""
        return self.load_ms + self.selection_ms + self.training_ms + self.swap_ms


@dataclass(frozen=True, kw_only=True)
class PhaseEnergies:
    """Millijoules per phase; all ``None`` when the device's power is unknown."""

    load_mj: float | None
    selection_mj: float | None
    training_mj: float | None
    swap_mj: float | None
    total_mj: float | None


_UNKNOWN = PhaseEnergies(load_mj=None, selection_mj=None, training_mj=None, swap_mj=None, total_mj=None)


def phase_energies(times: PhaseTimes, profile: DeviceProfile) -> PhaseEnergies:
    """Return the energy of each phase."""
    busy = profile.active_power_w
    storage = busy if profile.device_class == "microcontroller" else profile.io_power_w
    if busy is None or storage is None:
        return _UNKNOWN
    load, swap = storage * times.load_ms, storage * times.swap_ms
    selection, training = busy * times.selection_ms, busy * times.training_ms
    return PhaseEnergies(
        load_mj=load, selection_mj=selection, training_mj=training, swap_mj=swap,
        total_mj=load + selection + training + swap,
    )  # fmt: skip


def energy_interval(energy_mj: float, profile: DeviceProfile, *, phase: Phase = "training") -> tuple[float, float]:
    """Return the low and the high end of the 90 % interval of ``energy_mj``.

    Energy is power times time, so the interval of the time and that of the power add in squares of logarithms.
    Rows of whole training runs that state energy give the interval directly.
    """
    direct = profile.calibration.training_energy if phase == "training" else None
    factor = combined_factor(profile, phase=phase) if direct is None else direct.interval_factor
    return energy_mj / factor, energy_mj * factor


def combined_factor(profile: DeviceProfile, *, phase: Phase) -> float:
    """Return the interval factor of power and time together; an estimate stays within 2 as a whole.

    Power that nobody measured on this device may itself be half or double; measured power without rows of its own
    (a published mean) is trusted within 20 %.
    """
    time, power = getattr(profile.calibration, phase), profile.calibration.energy
    if time is None:
        return ESTIMATE_FACTOR
    if power is not None:
        spread = power.interval_factor
    else:
        spread = 1.2 if profile.provenance_of("active_power_w").kind == "measured" else ESTIMATE_FACTOR
    return math.exp(math.hypot(math.log(time.interval_factor), math.log(spread)))
