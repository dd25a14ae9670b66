"""An output that is full, read-only or gone, a clock that jumps, a cluster that does not answer: one clear message."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_job import SERIAL, TINY, assert_no_double_keys, command, document, environment

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.simulation.computing import Computation
from tinytrain_dist.simulation.manifest_snapshot import MANIFEST_VERSION

SMALL_CHUNKS = "dispatch.chunk_seconds=0.001"


def words(root: Path, *more: str) -> list[str]:
    return ["simulate", *TINY, SERIAL, SMALL_CHUNKS, f"run.root={root}", "run.id=mine", *more]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The result hash of a run nobody disturbs."""
    root = tmp_path_factory.mktemp("undisturbed")
    assert main(words(root)) == ExitCode.DONE
    return str(document(root / "mine")["result_hash"])


def mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


def remount(disk: Path, options: str) -> None:
    mount("-o", f"remount,{options}", str(disk))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 120 kB: room for the first shards."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk))
    except FileNotFoundError:
        pytest.skip("no mount command here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)


def assert_storage_error(capsys: pytest.CaptureFixture[str], *said: str) -> None:
    err = capsys.readouterr().err
    assert "Traceback" not in err and all(text in err for text in said), err
    assert err.splitlines()[-1] == "exit code 8: storage error"


def assert_resumes(root: Path, wanted: str) -> None:
    assert main(words(root)) == ExitCode.DONE
    assert document(root / "mine")["result_hash"] == wanted
    assert_no_double_keys(root / "mine")


@pytest.mark.slow
def test_a_full_disk_is_named_and_with_room_the_run_goes_on(
    small_disk: Path, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(small_disk)) == ExitCode.STORAGE
    assert_storage_error(capsys, str(small_disk), "No space left on device")
    assert not (small_disk / "mine" / "_SUCCESS").exists()
    assert list((small_disk / "mine" / "shards").glob("*.parquet"))
    remount(small_disk, "size=64m")
    assert_resumes(small_disk, wanted)


@pytest.mark.slow
def test_a_disk_that_is_read_only_is_named_and_left_as_it_is(
    small_disk: Path, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    remount(small_disk, "size=64m")
    assert main(words(small_disk, "episodes.num_tasks=1")) == ExitCode.DONE
    before = sorted(small_disk.rglob("*"))
    remount(small_disk, "ro")
    capsys.readouterr()
    assert main(words(small_disk)) == ExitCode.STORAGE
    assert_storage_error(capsys, str(small_disk), "Read-only file system")
    assert sorted(small_disk.rglob("*")) == before
    remount(small_disk, "rw")
    assert_resumes(small_disk, wanted)


@pytest.mark.slow
def test_a_run_folder_that_vanishes_stops_the_driver_and_the_same_command_goes_on(
    tmp_path: Path, wanted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entered, original = 0, Computation.enter

    def vanishing(self: Computation, finished: Any) -> None:
        nonlocal entered
        entered += 1
        original(self, finished)
        if entered == 2:
            shutil.rmtree(tmp_path / "mine")

    with monkeypatch.context() as patch:
        patch.setattr(Computation, "enter", vanishing)
        assert main(words(tmp_path)) == ExitCode.LOCKED
    err = capsys.readouterr().err
    assert "lock.json: was removed while this process held it" in err and "Traceback" not in err
    assert not (tmp_path / "mine" / "_SUCCESS").exists()
    assert_resumes(tmp_path, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("version", [MANIFEST_VERSION + 1, "next"])
def test_a_run_of_another_schema_is_refused_and_left_alone(
    version: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path, "methods=[raw_pixels]", "episodes.num_tasks=1")) == ExitCode.DONE
    path = tmp_path / "mine" / "manifest.json"
    newer = json.loads(path.read_text()) | {"schema_version": version}
    path.write_text(json.dumps(newer))
    before = {file: file.read_bytes() for file in (tmp_path / "mine").rglob("*") if file.is_file()}
    assert main(words(tmp_path, "methods=[raw_pixels]")) == ExitCode.LOCKED
    assert f"schema version {version}; this program writes {MANIFEST_VERSION}" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in (tmp_path / "mine").rglob("*") if file.is_file()} == before


TAKES_TURNS = """
import time
_starts, _real = time.monotonic(), time.time
_real_ns, _real_gmtime, _real_localtime = time.time_ns, time.gmtime, time.localtime
def _offset():
    return -86400.0 * (int((time.monotonic() - _starts) / 0.2) % 2)
time.time = lambda: _real() + _offset()
time.time_ns = lambda: _real_ns() + int(_offset() * 1e9)
time.gmtime = lambda seconds=None: _real_gmtime(time.time() if seconds is None else seconds)
time.localtime = lambda seconds=None: _real_localtime(time.time() if seconds is None else seconds)
"""


@pytest.mark.slow
def test_a_clock_that_jumps_back_and_forth_changes_nothing(tmp_path: Path, wanted: str) -> None:
    """In the job's process the wall clock loses a day, and finds it again, five times a second."""
    (tmp_path / "sitecustomize.py").write_text(TAKES_TURNS)
    done = subprocess.run(
        command(SERIAL, SMALL_CHUNKS, f"run.root={tmp_path}", "run.id=mine"),
        env=environment(PYTHONPATH=str(tmp_path)), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, status = document(tmp_path / "mine"), json.loads((tmp_path / "mine" / "status.json").read_text())
    assert found["result_hash"] == wanted and found["created"] <= found["updated"]
    assert 0 <= status["elapsed_s"] < 300 and status["units_per_s"] > 0 and status["eta_s"] == 0
    rows = pq.read_table(tmp_path / "mine" / "results", columns=["host_ms"]).to_pylist()
    assert all(0 <= row["host_ms"] < 300_000 for row in rows)
    assert "-" not in "".join(line.partition(":")[2] for line in done.stderr.splitlines() if "s left" in line)


@pytest.fixture
def silent() -> Iterator[str]:
    """A listener that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("which", ["nobody", "silent"])
def test_a_cluster_that_does_not_answer_is_given_up_within_15_s(
    which: str, silent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = {"nobody": "127.0.0.1:1", "silent": silent}[which]
    given = [word for word in words(tmp_path) if word != SERIAL]
    main(words(tmp_path, "methods=[tinytrian]"))  # everything is imported
    capsys.readouterr()
    started = time.monotonic()
    assert main([*given, f"executor.address={address}"]) == ExitCode.NO_CLUSTER
    assert time.monotonic() - started < 15
    err = capsys.readouterr().err
    assert f"no Ray cluster answers at {address}" in err and "Traceback" not in err
    assert err.splitlines()[-1].startswith("exit code 7: ")
