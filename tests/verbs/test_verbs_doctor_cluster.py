"""The doctor asks real Ray heads: one that wants a token, one that is open to everybody."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tinytrain_dist.foundation.errors import ExitCode

pytestmark = pytest.mark.slow
TOKEN = secrets.token_hex(32)
START_LIMIT_S = 60


@dataclass(frozen=True)
class Started:
    """A head in a process group of its own."""

    address: str
    folder: Path
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_head(mode: str, folder: Path, *words: str) -> Started:
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=1",
        f"--dashboard-port={free_port()}", f"--ray-client-server-port={free_port()}", f"--temp-dir={folder}",
        f"--dashboard-agent-listen-port={free_port()}",
        "--object-store-memory=80000000", *words,
    ]  # fmt: skip
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    process = subprocess.Popen(
        command,
        env=plain | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Started(f"127.0.0.1:{port}", folder, process)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Started]]:
    folder = Path(os.environ.get("TMPDIR", "/tmp"))  # a socket's path must be short
    made = {
        "token": start_head("token", folder / f"doctor-{secrets.token_hex(3)}"),
        "open": start_head("disabled", folder / f"doctor-{secrets.token_hex(3)}", "--dashboard-host=0.0.0.0"),
    }
    try:
        yield made
    finally:
        for head in made.values():
            os.killpg(head.process.pid, signal.SIGKILL)
            head.process.wait()
            shutil.rmtree(head.folder, ignore_errors=True)


def answers(root: Path, cases: list[tuple[Started, dict[str, str]]]) -> list[dict[str, Any]]:
    """Return what the doctor says in each case: a head, and what the user has exported."""
    asked = [{"address": head.address, "variables": variables} for head, variables in cases]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "doctor_calls.py")],
        input=json.dumps({"token": TOKEN, "root": str(root), "cases": asked}),
        capture_output=True, text=True, check=False, timeout=START_LIMIT_S + 60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_heads_with_and_without_authentication(heads: dict[str, Started], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    closed = heads["token"]
    cases = [
        (closed, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}),
        (closed, {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}),
        (closed, {}),
        (closed, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}),
        (closed, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": TOKEN}),
        (heads["open"], {}),
    ]
    *asked, open_head = answers(tmp_path, cases)
    for good in asked[:2]:
        assert good["code"] == ExitCode.DONE and good["lines"]["ray auth"]["state"] == "ok"
        assert good["lines"]["ray"]["found"] == f"{closed.address}: 1 nodes alive, 1 CPUs"
        assert "ray dashboard" not in good["lines"]  # it listens on this machine alone
    refusals = ("this client has no token", "the head refuses this client's token", "but RAY_AUTH_MODE=disabled")
    for bad, said in zip(asked[2:], refusals, strict=True):
        assert bad["code"] == ExitCode.NO_CLUSTER and said in bad["lines"]["ray auth"]["found"]
        assert "RAY_AUTH_MODE=token" in bad["lines"]["ray auth"]["advice"]

    assert open_head["code"] == ExitCode.DONE and "takes anybody's calls" in open_head["lines"]["ray auth"]["found"]
    loud = open_head["lines"]["ray dashboard"]
    assert loud["state"] == "warning" and "ANYBODY WHO REACHES" in loud["found"] and "CVE-2023-48022" in loud["found"]
