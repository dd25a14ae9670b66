"""``doctor``: how many cores and how much memory a job would really have on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tinytrain_dist.foundation.diagnosis import Diagnosis, ok, warning

BYTES_PER_WORKER = 1 << 30
"""Memory a worker and its share of Ray need, generously."""


def diagnose_machine(root: Path = Path("/")) -> Iterator[Diagnosis]:
    """Yield lines about cores and memory, container limits below ``root`` (``/proc``, ``/sys``) included."""
    cores, quota = len(os.sched_getaffinity(0)), _cpu_quota(root)
    if quota is not None and quota < cores:
        advice = f"set executor.num_workers={max(1, int(quota))}: a job would start {cores} workers"
        yield warning("cores", f"{cores} cores, but the container may use {quota:g} of them", advice)
        cores = max(1, int(quota))
    else:
        yield ok("cores", f"{cores} cores; every worker uses one thread, whatever OMP_NUM_THREADS says")
    memory = _free_memory(root)
    if memory is None:
        return
    found = f"{memory / 2**30:.1f} GiB free for {cores} workers"
    if memory < cores * BYTES_PER_WORKER:
        fewer = max(1, memory // BYTES_PER_WORKER)
        yield warning("memory", found, f"set executor.num_workers={fewer}: about 1 GiB a worker is needed")
    else:
        yield ok("memory", found)


def _cpu_quota(root: Path) -> float | None:
    """Return the CPUs the control group may use; ``None`` without a limit."""
    words = (_text(root / "sys/fs/cgroup/cpu.max") or "").split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    return int(words[0]) / int(words[1])


def _free_memory(root: Path) -> int | None:
    """Return the smaller of what the machine has free and what the control group may still take, in bytes."""
    lines = (_text(root / "proc/meminfo") or "").splitlines()
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit, used = (_text(root / f"sys/fs/cgroup/memory.{name}") or "" for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        free.append(max(0, int(limit) - int(used)))
    return min(free, default=None)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
