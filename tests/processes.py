"""Processes of this machine as /proc shows them: who runs below whom, and which Ray worker computes."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import NamedTuple

BUSY = "ray::run_call"
"""How Ray names a worker's process while it runs a call of ours."""


class Process(NamedTuple):
    """One process: its id, its parent's, and its command line."""

    pid: int
    parent: int
    command: str


def processes() -> dict[int, Process]:
    """Return every process there is, by id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found[int(folder.name)] = Process(int(folder.name), parent, command)
    return found


def below(pid: int) -> list[Process]:
    """Return the children of a process, theirs, and so on; sorted by id."""
    everything = processes()
    family = {pid}
    while more := {p.pid for p in everything.values() if p.parent in family} - family:
        family |= more
    return [everything[member] for member in sorted(family - {pid})]


def busy_workers(pid: int) -> list[int]:
    """Return the processes below ``pid`` in which Ray runs a call."""
    return [process.pid for process in below(pid) if process.command.startswith(BUSY)]


def alive(pid: int) -> bool:
    """Return whether a process runs; one that waits for its parent to notice its end does not."""
    return bool(found := processes().get(pid)) and bool(found.command)


def kill(pid: int, how: int = signal.SIGKILL) -> bool:
    """Send a signal; false where the process is gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
        return True
    return False


def as_in_a_terminal() -> None:
    """Let a child process take Ctrl-C (``preexec_fn``)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has its background jobs ignore it, and that is inherited
