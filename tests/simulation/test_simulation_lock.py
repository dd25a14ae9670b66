"""The run lock: one driver at a time, the holder is named, a dead holder's lock is free."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinytrain_dist.foundation.errors import ExitCode, RunLockedError, StorageError
from tinytrain_dist.simulation.lock import run_lock

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom tinytrain_dist.simulation.lock import run_lock\n"
    "with run_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def start_holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_driver_is_refused_and_told_who_holds_the_run(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        with pytest.raises(RunLockedError, match=rf"held by process {os.getpid()} on ") as caught, run_lock(tmp_path):
            pass
        assert caught.value.exit_code == ExitCode.LOCKED
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []
    with run_lock(tmp_path):
        pass


def test_another_process_holds_until_it_is_killed(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    try:
        with pytest.raises(RunLockedError, match=f"process {holder.pid}"), run_lock(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert (tmp_path / "lock.json").exists()  # it had no chance to remove it
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', json.dumps({"pid": 1, "host": "elsewhere"})])
def test_a_file_nobody_holds_is_taken_over_whatever_it_says(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock.json").write_text(text)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_the_lock_is_given_back_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        _ = 1 / 0
    with run_lock(tmp_path):
        pass


def test_a_folder_that_is_none_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"lock\.json: cannot be locked"), run_lock(tmp_path / "file"):
        pass
