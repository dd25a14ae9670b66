"""Energy: power of what the device does in a phase x the time of the phase (W x ms = mJ).

Microcontroller: active power everywhere. Linux board: active power while it computes, I/O power while it loads
or swaps. A device whose power nobody measured has no energy, rather than a guessed one.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def powers_w(profile: DeviceProfile) -> tuple[float, float] | None:
    """Return the power while computing and while waiting for storage, in watts; ``None`` where one is unknown."""
    busy = profile.active_power_w
    storage = busy if profile.device_class == "microcontroller" else profile.io_power_w
    return None if busy is None or storage is None else (busy, storage)


def phase_energies(times: PhaseTimes, profile: DeviceProfile) -> PhaseEnergies:
    """Return the energy of each phase."""
    powers = powers_w(profile)
    if powers is None:
        return _UNKNOWN
    busy, storage = powers
    load, swap = storage * times.load_ms, storage * times.swap_ms
    selection, training = busy * times.selection_ms, busy * times.training_ms
    return PhaseEnergies(
        load_mj=load, selection_mj=selection, training_mj=training, swap_mj=swap,
        total_mj=load + selection + training + swap,
    )  # fmt: skip
