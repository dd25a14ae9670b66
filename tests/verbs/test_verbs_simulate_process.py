"""The job as a process of its own: killed, terminated, interrupted, and submitted to a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_job import (
    REPOSITORY,
    SERIAL,
    TINY,
    assert_no_double_keys,
    command,
    document,
    environment,
    finish,
    num_shards,
    start,
)

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode

pytestmark = pytest.mark.slow
SMALL_CHUNKS = "dispatch.chunk_seconds=0.001"
LONG = "finetune.iterations=60"  # six tasks must outlast a shard, its discovery and a signal on a busy machine
EMBEDDED = "executor.num_workers=2"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return run.json of a serial run nobody disturbs."""
    root = tmp_path_factory.mktemp("undisturbed")
    assert main(["simulate", *TINY, SERIAL, LONG, f"run.root={root}", "run.id=mine"]) == ExitCode.DONE
    return document(root / "mine")


def stopped_in_the_middle(process: subprocess.Popen[str], folder: Path, how: int) -> float:
    """Send ``how`` once a shard is there; returns the seconds until the lock was given back (or the process gone)."""
    until = time.monotonic() + 120
    while num_shards(folder) < 1 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, how)
    sent = time.monotonic()
    while (folder / "lock.json").exists() and process.poll() is None:
        time.sleep(0.01)
    seconds = time.monotonic() - sent
    process.wait(timeout=60)
    return seconds


def end(process: subprocess.Popen[str]) -> None:
    """End what the process left in its group (Ray's daemons of a killed driver)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("executor", [SERIAL, EMBEDDED])
def test_a_killed_driver_resumes_with_the_same_command(
    executor: str, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    words = (executor, LONG, SMALL_CHUNKS, f"run.root={tmp_path}", "run.id=mine")
    process = start(*words)
    try:
        stopped_in_the_middle(process, tmp_path / "mine", signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, process.communicate()
    finally:
        end(process)
    before = num_shards(tmp_path / "mine")
    assert 1 <= before < 6
    assert not (tmp_path / "mine" / "_SUCCESS").exists()
    resumed = finish(*words)
    assert resumed.returncode == 0, resumed.stderr
    counts = re.search(r"mine: (\d+) tasks computed, (\d+) reused, 0 failed", resumed.stderr)
    assert counts is not None, resumed.stderr
    # a shard that was written, and whose driver died before it could enter it, is adopted
    assert before <= int(counts[2]) <= before + 2 and int(counts[1]) + int(counts[2]) == 6
    assert document(tmp_path / "mine")["result_hash"] == undisturbed["result_hash"]
    assert_no_double_keys(tmp_path / "mine")


@pytest.mark.parametrize(
    ("executor", "how", "code"),
    [
        (SERIAL, signal.SIGTERM, ExitCode.TERMINATED),
        (EMBEDDED, signal.SIGTERM, ExitCode.TERMINATED),
        (EMBEDDED, signal.SIGINT, ExitCode.INTERRUPTED),
    ],
)
def test_a_signal_is_answered_within_3_s_and_the_job_resumes(
    executor: str, how: int, code: ExitCode, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    words = (executor, LONG, SMALL_CHUNKS, f"run.root={tmp_path}", "run.id=mine")
    process = start(*words)
    try:
        seconds = stopped_in_the_middle(process, tmp_path / "mine", how)
        _, err = process.communicate()
    finally:
        end(process)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == f"exit code {int(code)}: {code.describe()}"
    assert not (tmp_path / "mine" / "lock.json").exists()
    found = document(tmp_path / "mine")
    assert (found["status"], found["exit_code"]) == ("stopped", int(code))
    assert seconds < 3
    resumed = finish(SERIAL, *words[1:])
    assert resumed.returncode == 0, resumed.stderr
    assert document(tmp_path / "mine")["result_hash"] == undisturbed["result_hash"]


@pytest.mark.parametrize("limit_bytes", [3_000, 40_000])
def test_a_full_disk_is_named_and_the_run_resumes(
    limit_bytes: int, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    words = (SERIAL, LONG, f"run.root={tmp_path}", "run.id=mine")
    program = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes})); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    full = subprocess.run(
        [sys.executable, "-c", program, *command(*words)[1:]],
        capture_output=True, text=True, env=environment(), timeout=300, check=False,
    )  # fmt: skip
    assert full.returncode == ExitCode.STORAGE, full.stderr
    assert "Traceback" not in full.stderr and "cannot be written: File too large" in full.stderr
    assert full.stderr.splitlines()[-1] == "exit code 8: storage error"
    assert not (tmp_path / "mine" / "lock.json").exists()
    resumed = finish(*words)
    assert resumed.returncode == 0, resumed.stderr
    assert document(tmp_path / "mine")["result_hash"] == undisturbed["result_hash"]


def test_two_drivers_of_one_run(tmp_path: Path) -> None:
    words = (SERIAL, LONG, SMALL_CHUNKS, f"run.root={tmp_path}", "run.id=mine", "episodes.num_tasks=20")
    process = start(*words)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "mine" / "lock.json").exists() and time.monotonic() < until:
            time.sleep(0.02)
        second = finish(*words)
        assert process.poll() is None
    finally:
        end(process)
    assert second.returncode == ExitCode.LOCKED
    assert f"held by process {process.pid}" in second.stderr
    assert second.stderr.splitlines()[-1] == "exit code 4: run locked or incompatible"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def ray_head(mode: str, log: Path) -> Iterator[dict[str, str]]:
    """Run a Ray head with authentication ``mode``, token or disabled; gives the environment its clients need."""
    folder = Path("/tmp") / f"ray-{secrets.token_hex(4)}"  # the path of its sockets may have 107 characters only
    port, dashboard = free_port(), free_port()
    client = environment(
        RAY_AUTH_MODE=mode,
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    )
    ray = str(Path(sys.executable).with_name("ray"))
    with log.open("w") as stream:
        process = subprocess.Popen(
            [
                ray, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2",
                "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}",
                f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}",
                "--object-store-memory=300000000", "--disable-usage-stats",
            ],
            env=client, stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for_port(dashboard, process, log)
        yield client | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    finally:
        end_session(process)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End the head and every process of its session, and no other."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
    for folder in Path("/proc").iterdir():
        try:
            session = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[3])
            if session == process.pid:
                os.kill(int(folder.name), signal.SIGKILL)
        except (ValueError, OSError):
            continue


def submit(head: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    ray = str(Path(sys.executable).with_name("ray"))
    words = ("job", "submit", "--working-dir", ".", "--", sys.executable, "jobs/simulate.py", *TINY, *words)
    return subprocess.run(
        [ray, *words], cwd=REPOSITORY, env=head, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the environment of a client of a head with token authentication."""
    with ray_head("token", tmp_path_factory.mktemp("head") / "log") as client:
        yield client


def test_without_authentication_a_submitted_job_gives_the_embedded_result(
    tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    with ray_head("disabled", tmp_path / "log") as client:
        without = {key: value for key, value in client.items() if key != "RAY_AUTH_TOKEN"}
        done = submit(without, LONG, f"run.root={tmp_path}", "run.id=mine")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert document(tmp_path / "mine")["result_hash"] == undisturbed["result_hash"]


def test_a_submitted_job_gives_the_embedded_result(
    head: dict[str, str], tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    done = submit(head, LONG, f"run.root={tmp_path}", "run.id=mine")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    output = done.stdout + done.stderr
    assert "exit code 0: done" in output and "fits %" in output
    assert document(tmp_path / "mine")["result_hash"] == undisturbed["result_hash"]

    relative = submit(head, "run.root=runs")
    assert relative.returncode == 1
    output = relative.stdout + relative.stderr
    assert "inside a submitted Ray job only an absolute path is allowed" in output
    assert "exit code 2: usage or configuration error" in output

    stranger = submit(head | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}, f"run.root={tmp_path}", "run.id=stranger")
    assert stranger.returncode != 0
    assert not (tmp_path / "stranger").exists()
