"""The same numbers in this process and on Ray, with one worker and two, and when workers are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_simulation import chunks_of, rows_of, run, tiny_settings

from tinytrain_dist.execution.settings import ExecutorSettings, cluster
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.simulation.engine import SimulationResult

pytestmark = pytest.mark.slow
ONE, TWO = ExecutorSettings(num_workers=1), ExecutorSettings(num_workers=2)
METHODS = ("raw_pixels", "none", "last_layer", "full_train", "tinytrain")


@pytest.fixture(scope="module")
def connection() -> Iterator[None]:
    with cluster(TWO):
        yield


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> SimulationResult:
    return run(tiny_settings(num_tasks=3, methods=METHODS), tmp_path_factory.mktemp("serial"))


@pytest.mark.parametrize("workers", [ONE, TWO], ids=["1 worker", "2 workers"])
@pytest.mark.parametrize("seconds", [0.001, 1000.0], ids=["small chunks", "large chunks"])
def test_ray_gives_the_serial_result_bit_for_bit(
    connection: None, serial: SimulationResult, tmp_path: Path, workers: ExecutorSettings, seconds: float
) -> None:
    settings = tiny_settings(num_tasks=3, methods=METHODS, dispatch=chunks_of(seconds))
    result = run(settings, tmp_path, executor=workers)
    assert result.exit_code == ExitCode.DONE and result.rows == serial.rows
    assert result.result_hash == serial.result_hash
    assert result.folder.name == serial.folder.name


def test_a_run_begun_serially_goes_on_with_ray(connection: None, serial: SimulationResult, tmp_path: Path) -> None:
    run(tiny_settings(num_tasks=1, methods=METHODS), tmp_path)
    result = run(tiny_settings(num_tasks=3, methods=METHODS), tmp_path, executor=TWO)
    assert (result.computed, result.reused, result.result_hash) == (4, 2, serial.result_hash)


def busy_workers() -> list[int]:
    """Return the processes below this one in which Ray runs a call."""
    parents, busy = {}, []
    for folder in Path("/proc").iterdir():
        try:
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::run_call"):
                busy.append(pid)
        except (ValueError, OSError):
            continue
    return [pid for pid in busy if os.getpid() in ancestors(pid, parents)]


def ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found = set()
    while pid := parents.get(pid, 0):
        found.add(pid)
    return found


def test_killed_workers_change_nothing(connection: None, serial: SimulationResult, tmp_path: Path) -> None:
    killed: list[int] = []
    stop = threading.Event()

    def kill_two() -> None:
        while len(killed) < 2 and not stop.is_set():
            for pid in busy_workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                stop.wait(1.5)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_two)
    killer.start()
    try:
        settings = tiny_settings(num_tasks=3, methods=METHODS, dispatch=chunks_of(1000.0))
        result = run(settings, tmp_path, executor=TWO)
    finally:
        stop.set()
        killer.join()
    assert killed
    assert result.exit_code == ExitCode.DONE and result.result_hash == serial.result_hash
    assert max(row["attempt"] for row in rows_of(result.folder)) > 1
