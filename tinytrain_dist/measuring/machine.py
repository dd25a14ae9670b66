"""The machine it stands on: board, clock, governor, memory. What cannot be read is ``None``, never guessed."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Facts recorded with every row."""

    board: str
    clock_hz: int | None
    governor: str | None
    ram_bytes: int | None

    def notices(self) -> list[str]:
        """Return what could not be read, in words."""
        missing = []
        if self.clock_hz is None:
            missing.append("clock: none (/sys has no cpufreq here: a virtual machine or a fixed clock)")
        if self.governor is None:
            missing.append("governor: none (/sys has no cpufreq here)")
        return missing


def read_machine(root: Path = Path("/")) -> Machine:
    """Return the facts below ``root`` (``/sys``, ``/proc``)."""
    kilohertz = _text(root / _CPUFREQ / "scaling_cur_freq")
    return Machine(
        board=_board(root),
        clock_hz=int(kilohertz) * 1000 if kilohertz and kilohertz.isdigit() else None,
        governor=_text(root / _CPUFREQ / "scaling_governor"),
        ram_bytes=_ram_bytes(root),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def _board(root: Path) -> str:
    model = _text(root / "proc/device-tree/model")
    if model:
        return model
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return f"{' '.join(value.split())}, {os.cpu_count()} cores"
    return platform.machine() or "unknown"


def _ram_bytes(root: Path) -> int | None:
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        words = line.split()
        if words[:1] == ["MemTotal:"] and words[1:2] and words[1].isdigit():
            return int(words[1]) * 1024
    return None
