"""Energy where the machine lets it be read: RAPL counters (x86) or INA power monitors (Jetson boards and others).

Both see the whole package or board, other processes included: measure on a quiet machine. Many systems let only
root read RAPL; then there is no energy, and the rows say so by an empty cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class EnergyMeter(Protocol):
    """Reads energy used so far."""

    @property
    def name(self) -> str:
        """What is read."""

    def start(self) -> object:
        """Return the state at the start of a span."""

    def joules(self, started: object, seconds: float) -> float:
        """Return the energy since ``start``, over a span of ``seconds`` of wall time."""


@dataclass(frozen=True)
class RaplMeter:
    """Sum of the package counters, in microjoules; each wraps around at its own range."""

    counters: tuple[tuple[Path, int], ...]
    name: str = "rapl"

    def start(self) -> tuple[int, ...]:
        """Return every counter."""
        return tuple(int(path.read_text()) for path, _ in self.counters)

    def joules(self, started: object, seconds: float) -> float:
        """Return the energy since ``start``."""
        assert isinstance(started, tuple)
        spans = zip(started, self.start(), self.counters, strict=True)
        microjoules: int = sum((now - before) % span for before, now, (_, span) in spans)
        return microjoules / 1e6


@dataclass(frozen=True)
class InaMeter:
    """Power of the first channel (the board's input), read at both ends of a span."""

    read: tuple[Path, ...]
    name: str = "ina"

    def start(self) -> float:
        """Return the power in watts: ``power1_input`` in microwatts, or millivolts x milliamperes."""
        values = [int(path.read_text()) for path in self.read]
        return values[0] / 1e6 if len(values) == 1 else values[0] * values[1] / 1e6

    def joules(self, started: object, seconds: float) -> float:
        """Return mean power of both ends x the span."""
        assert isinstance(started, float)
        return (started + self.start()) / 2 * seconds


def find_meter(root: Path = Path("/")) -> EnergyMeter | None:
    """Return the first sensor that can be read below ``root``, or ``None``."""
    candidates: list[EnergyMeter] = [*_rapl(root / "sys/class/powercap"), *_ina(root / "sys/class/hwmon")]
    return next((meter for meter in candidates if _is_readable(meter)), None)


def _rapl(folder: Path) -> list[RaplMeter]:
    packages = sorted(folder.glob("intel-rapl:[0-9]")) or sorted(folder.glob("intel-rapl/intel-rapl:[0-9]"))
    counters = []
    for package in packages:
        try:
            counters.append((package / "energy_uj", int((package / "max_energy_range_uj").read_text()) + 1))
        except (OSError, ValueError):
            continue
    return [RaplMeter(tuple(counters))] if counters else []


def _ina(folder: Path) -> list[InaMeter]:
    found = []
    for sensor in sorted(folder.glob("hwmon*")):
        try:
            is_ina = (sensor / "name").read_text().strip().startswith("ina")
        except OSError:
            continue
        pairs: Sequence[tuple[str, ...]] = (("power1_input",), ("in1_input", "curr1_input"))
        names = next((pair for pair in pairs if all((sensor / name).is_file() for name in pair)), None)
        if is_ina and names:
            found.append(InaMeter(tuple(sensor / name for name in names)))
    return found


def _is_readable(meter: EnergyMeter) -> bool:
    try:
        meter.start()
    except (OSError, ValueError):
        return False
    return True
