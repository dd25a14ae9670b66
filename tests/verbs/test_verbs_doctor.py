"""The doctor in real situations: nothing listens, something else listens, nothing can be written, data is damaged."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import REFUSED, set_account

from tinytrain_dist.cli import main
from tinytrain_dist.data import bundled_check, domain, splits
from tinytrain_dist.data.splits import BUNDLED
from tinytrain_dist.execution import ray_session
from tinytrain_dist.execution.machine_check import diagnose_machine
from tinytrain_dist.foundation.diagnosis import diagnose, ok
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.storage import open_storage


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without a cluster, a token or a W&B key."""
    for name in (
        "RAY_ADDRESS",
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "WANDB_MODE",
        "WANDB_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def call(*words: str, code: ExitCode = ExitCode.DONE) -> dict[str, list[dict[str, str]]]:
        given = words if "--root" in words else ("--root", str(tmp_path / "runs"), *words)
        assert main(["doctor", "--json", *given]) == code
        found = json.loads(capsys.readouterr().out)
        assert found["exit_code"] == code and found["usable"] == (code == ExitCode.DONE)
        lines: dict[str, list[dict[str, str]]] = {}
        for line in found["checks"]:
            assert line["state"] == "ok" or line["advice"]
            lines.setdefault(line["subject"], []).append(line)
        return lines

    return call


def test_a_usable_machine_is_found_usable_and_left_as_it_was(
    doctor: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = doctor()
    assert {"python", "packages", "torch", "cores", "ray", "disk", "storage", "data", "weights", "wandb"} <= set(lines)
    assert not any(line["state"] == "problem" for group in lines.values() for line in group)
    assert "CPU" in lines["torch"][0]["found"] and "7 bundled domains" in lines["data"][0]["found"]
    assert lines["wandb"][0]["found"].startswith("offline: no key")
    assert not (tmp_path / "runs").exists()
    assert main(["doctor", "--root", str(tmp_path)]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[-1].startswith("usable: ")


def test_an_address_where_nothing_listens(doctor: Any) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        address = f"127.0.0.1:{held.getsockname()[1]}"
        start = time.monotonic()
        lines = doctor("--address", address, code=ExitCode.NO_CLUSTER)
        assert time.monotonic() - start < 15
    (line,) = lines["ray"]
    assert address in line["found"] and "tried for" in line["found"] and "refused" in line["found"]


@pytest.fixture
def silent() -> Iterator[str]:
    """A listener that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_that_says_nothing(doctor: Any, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "PROBE_TIMEOUT_S", 0.3)
    monkeypatch.setenv("RAY_ADDRESS", silent)
    (line,) = doctor(code=ExitCode.NO_CLUSTER)["ray"]
    assert "timed out" in line["found"] and f"RAY_ADDRESS={silent}" in line["found"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "head"])
def test_an_address_of_another_kind(doctor: Any, address: str) -> None:
    (line,) = doctor("--address", address, code=ExitCode.USAGE)["ray"]
    assert "host:port" in line["found"]


def test_a_run_root_that_cannot_be_written(doctor: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (line,) = doctor("--root", str(tmp_path / "file" / "runs"), code=ExitCode.STORAGE)["storage"]
    assert line["state"] == "problem" and "is no folder" in line["found"]
    (line,) = doctor("--root", "/proc/runs", code=ExitCode.STORAGE)["storage"]  # refuses even the superuser
    assert "/proc cannot be written" in line["found"]


def test_an_unknown_storage_scheme(doctor: Any) -> None:
    (line,) = doctor("--root", "ftp://somewhere/runs", code=ExitCode.USAGE)["storage"]
    assert "scheme" in line["found"] and "s3://" in line["found"]


def test_a_bucket_as_run_root(doctor: Any, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = doctor("--root", f"{s3_bucket}/runs")["storage"]
    assert line["found"] == f"{s3_bucket}/runs can be written and refuses to overwrite"
    assert list(open_storage(s3_bucket).names()) == []
    (line,) = doctor("--root", f"{s3_bucket}-wrong/runs", code=ExitCode.STORAGE)["storage"]
    assert "no such bucket" in line["found"]
    set_account(monkeypatch, REFUSED)
    monkeypatch.setenv("TINYTRAIN_STORAGE_RETRY_S", "0.01")
    (line,) = doctor("--root", f"{s3_bucket}/runs", code=ExitCode.STORAGE)["storage"]
    assert REFUSED in line["found"]


def test_damaged_domains_are_named(doctor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "bundled"
    shutil.copytree(BUNDLED, copy)
    (copy / "flags.parquet").unlink()
    shutil.copyfile(copy / "fashion.parquet", copy / "signs.parquet")
    (copy / "icons.parquet").write_bytes((copy / "icons.parquet").read_bytes()[:100_000])
    for module in (splits, domain, bundled_check):
        monkeypatch.setattr(module, "BUNDLED", copy)
    lines = doctor(code=ExitCode.BAD_INPUT)["data"]
    assert [line["state"] for line in lines] == ["problem"] * 3
    text = " ".join(line["found"] for line in lines)
    assert all(word in text for word in ("'flags'", "is missing", "'signs'", "600 images", "icons.parquet"))


def test_the_key_decides_the_mode_and_is_never_printed(
    doctor: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "0123456789abcdef" * 3
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    assert main(["doctor", "--root", str(tmp_path)]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert "online: a key is in WANDB_API_KEY, but 127.0.0.1 cannot be reached" in out and secret not in out + err
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert doctor()["wandb"][0]["found"] == "disabled: WANDB_MODE=disabled"


def test_a_damaged_checkpoint_is_a_warning(doctor: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\x80\x04")
    lines = doctor("--root", str(tmp_path))["weights"]
    assert lines[0]["state"] == "warning" and "broken.safetensors" in lines[0]["found"]


def test_limits_of_a_container_count(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 9000000 kB\n")
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("600000000\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("100000000\n")
    cores, memory = diagnose_machine(tmp_path)
    assert cores.state == "warning" and "0.5 of them" in cores.found and "num_workers=1" in cores.advice
    assert memory.state == "warning" and "0.5 GiB free for 1 workers" in memory.found


def test_a_check_that_hangs_or_breaks_hides_no_other() -> None:
    def broken() -> Iterator[Any]:
        raise RuntimeError("api_key=0123456789")
        yield

    checks: Any = {
        "hangs": (lambda: time.sleep(5) or [], ExitCode.STORAGE),
        "breaks": (broken, ExitCode.USAGE),
        "works": (lambda: [ok("works", "well")], ExitCode.USAGE),
    }
    start = time.monotonic()
    late, failed, fine = diagnose(checks, limit_s=0.2)
    assert time.monotonic() - start < 2 and fine.state == "ok"
    assert late.exit_code == ExitCode.STORAGE and "no answer within 0.2 s" in late.found
    assert failed.exit_code == ExitCode.USAGE and "0123456789" not in failed.found
