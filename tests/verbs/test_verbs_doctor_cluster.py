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
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tinytrain_dist.cli import main
from tinytrain_dist.execution.head_inquiry import ask_head
from tinytrain_dist.foundation.errors import ClusterError, ExitCode

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


def wait_for(head: Started) -> None:
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            found = ask_head(head.address, token=TOKEN)
            if found.cpus >= 1 and found.dashboard:
                return
        except ClusterError:
            pass
        assert time.monotonic() < end and head.process.poll() is None, "the head did not start"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Started]]:
    folder = Path(os.environ.get("TMPDIR", "/tmp"))  # a socket's path must be short
    made = {
        "token": start_head("token", folder / f"doctor-{secrets.token_hex(3)}"),
        "open": start_head("disabled", folder / f"doctor-{secrets.token_hex(3)}", "--dashboard-host=0.0.0.0"),
    }
    try:
        for head in made.values():
            wait_for(head)
        yield made
    finally:
        for head in made.values():
            os.killpg(head.process.pid, signal.SIGKILL)
            head.process.wait()
            shutil.rmtree(head.folder, ignore_errors=True)


def lines_of(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, **variables: str
) -> tuple[int, dict[str, dict[str, str]]]:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code = main(["doctor", "--json", "--root", str(tmp_path), "--address", address])
    out, err = capsys.readouterr()
    assert TOKEN not in out + err
    return code, {line["subject"]: line for line in json.loads(out)["checks"]}


def test_a_head_that_wants_a_token(
    heads: dict[str, Started], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    address = heads["token"].address
    code, lines = lines_of(address, monkeypatch, capsys, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    assert code == ExitCode.DONE and lines["ray auth"]["state"] == "ok"
    assert lines["ray"]["found"] == f"{address}: 1 nodes alive, 1 CPUs" and "ray dashboard" not in lines

    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    code, lines = lines_of(address, monkeypatch, capsys, tmp_path, RAY_AUTH_TOKEN_PATH=str(file))
    assert code == ExitCode.DONE and lines["ray auth"]["state"] == "ok"

    for variables, said in (
        ({}, "this client has no token"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}, "the head refuses this client's token"),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": TOKEN}, "but RAY_AUTH_MODE=disabled"),
    ):
        code, lines = lines_of(address, monkeypatch, capsys, tmp_path, **variables)
        assert code == ExitCode.NO_CLUSTER and said in lines["ray auth"]["found"]
        assert "RAY_AUTH_MODE=token" in lines["ray auth"]["advice"]


def test_a_dashboard_open_to_everybody_is_a_loud_warning(
    heads: dict[str, Started], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, lines = lines_of(heads["open"].address, monkeypatch, capsys, tmp_path)
    assert code == ExitCode.DONE and "takes anybody's calls" in lines["ray auth"]["found"]
    assert lines["ray dashboard"]["state"] == "warning"
    assert "ANYBODY WHO REACHES" in lines["ray dashboard"]["found"] and "CVE" in lines["ray dashboard"]["found"]
