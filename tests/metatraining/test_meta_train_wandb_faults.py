"""Trainings that are killed or interrupted while their W&B run is open, as processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import alive, as_in_a_terminal, below, kill
from wandb_offline import records, steps

from tinytrain_dist.metatraining.curves import read_curves

pytestmark = pytest.mark.slow
DEADLINE_S = 120.0
ROUNDS = 400
CLEANED_UP_S = 20.0
"""Ctrl-C to the end of the process: at most 2 s are W&B's, the rest is for Python's own exit on a busy machine."""


def start(root: Path, data_root: str, *more: str, **environment: str) -> subprocess.Popen[str]:
    words = [
        "backbone.name=mobilenet_v2_w0.1", "backbone.resolution=16", f"data.roots=[{data_root}]",
        "meta_train.domains=[stripes]", "meta_train.way=[3,3]", "meta_train.shot=[1,1]", "meta_train.query=[1,1]",
        f"meta_train.num_episodes={ROUNDS}", "meta_train.episodes_per_round=1", "meta_train.checkpoint_every=10",
        "meta_train.validation_episodes=2", "meta_train.validation_way=2", "meta_train.validation_shot=1",
        "meta_train.validation_query=1", "executor.kind=serial", "run.id=w", f"run.root={root}",
        "wandb.mode=offline", *more,
    ]  # fmt: skip
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tinytrain_dist", "meta-train", *words], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=own | {"HOME": str(root / "home")} | environment,
        preexec_fn=as_in_a_terminal,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE_S:.0f} s for {what}"
        time.sleep(0.02)


def folders(root: Path) -> list[Path]:
    return sorted((root / "w" / "wandb").glob("offline-run-*"))


def newest(root: Path) -> int:
    """Return the round of the newest checkpoint; 0: there is none."""
    return max((int(path.name[6:12]) for path in root.glob("w/checkpoints/round-*.learner.safetensors")), default=0)


def logged(root: Path) -> int:
    """Return how many bytes of the W&B run's log are written."""
    return sum(log.stat().st_size for folder in folders(root) for log in folder.glob("run-*.wandb"))


def wait_for_rounds(job: subprocess.Popen[str], root: Path) -> None:
    """Wait until there is a checkpoint, and rounds are in the W&B run's log."""
    wait_for(lambda: bool(folders(root)) or job.poll() is not None, "a W&B run")
    opened = logged(root)
    wait_for(lambda: (newest(root) > 0 and logged(root) > opened + 4096) or job.poll() is not None, "rounds")


@pytest.fixture
def killed(data_root: str, tmp_path: Path) -> Path:
    """Return the root of a training that was killed after its first rounds had been logged."""
    job = start(tmp_path, data_root)
    wait_for_rounds(job, tmp_path)
    client = [child.pid for child in below(job.pid)]
    job.kill()
    assert job.wait(timeout=30) == -9, "the job was over before it was killed"
    wait_for(lambda: not any(map(alive, client)), "the end of the client's process")
    return tmp_path


def test_a_killed_training_leaves_what_was_logged_and_the_same_command_leaves_everything(
    killed: Path, data_root: str
) -> None:
    (cut,) = folders(killed)
    found = steps(cut)
    assert 1 <= len(found) < ROUNDS and list(found) == list(range(len(found)))
    assert found[0]["episodes.count"] == 1 and "accuracy/stripes" in found[0]
    again = start(killed, data_root)
    _, said = again.communicate(timeout=DEADLINE_S)
    assert again.returncode == 0, said
    assert "continued from the checkpoint" in said
    whole = folders(killed)[-1]
    rows, known = steps(whole), read_curves(killed / "w" / "curves.parquet")
    assert whole != cut and list(rows) == [*range(ROUNDS), ROUNDS]
    assert [rows[row["round"]]["loss"] for row in known] == pytest.approx([row["loss"] for row in known])
    assert {step: row["loss"] for step, row in found.items()} == {step: rows[step]["loss"] for step in found}
    assert "episodes.count" in rows[0] and "report.path" in rows[ROUNDS]
    assert records(whole, "exit")[0].get("exit_code", 0) == 0 and len(records(whole, "artifact")) == 1


def test_ctrl_c_ends_the_wandb_run_as_failed(data_root: str, tmp_path: Path) -> None:
    job = start(tmp_path, data_root)
    wait_for_rounds(job, tmp_path)
    begin = time.monotonic()
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=DEADLINE_S)
    assert time.monotonic() - begin < CLEANED_UP_S
    assert job.returncode == 130, said
    (folder,) = folders(tmp_path)
    assert records(folder, "exit")[0]["exit_code"] == 1
    known = [row["round"] for row in read_curves(tmp_path / "w" / "curves.parquet")]
    assert list(steps(folder)) == known, "every round that was done"
    assert "Traceback" not in said


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Return the port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as found:
        yield found.getsockname()[1]


def test_a_server_that_never_answers_holds_up_neither_the_rounds_nor_the_exit(
    data_root: str, tmp_path: Path, silent_server: int
) -> None:
    job = start(
        tmp_path, data_root, "wandb.mode=online", WANDB_BASE_URL=f"http://127.0.0.1:{silent_server}",
        WANDB_API_KEY="e1c5" * 10,
    )  # fmt: skip
    wait_for(lambda: newest(tmp_path) > 0 or job.poll() is not None, "a checkpoint")
    client = [child.pid for child in below(job.pid)]
    begin = time.monotonic()
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=DEADLINE_S)
    assert time.monotonic() - begin < CLEANED_UP_S
    assert job.returncode == 143, said
    assert "the run is left unfinished" in said and "Traceback" not in said
    wait_for(lambda: not any(map(alive, client)), "the end of the client's process")


def test_a_client_that_stands_still_holds_up_neither_the_rounds_nor_the_exit(data_root: str, tmp_path: Path) -> None:
    job = start(tmp_path, data_root)
    wait_for(lambda: logged(tmp_path) > 0 or job.poll() is not None, "a W&B run")
    client = [child.pid for child in below(job.pid) if "wandb-core" in child.command]
    assert len(client) == 1, "the client has a process of its own"
    for pid in client:
        kill(pid, signal.SIGSTOP)
    before = newest(tmp_path)
    wait_for(lambda: newest(tmp_path) > before or job.poll() is not None, "a checkpoint")
    begin = time.monotonic()
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=DEADLINE_S)
    assert time.monotonic() - begin < CLEANED_UP_S
    assert job.returncode == 130 and "Traceback" not in said, said
    assert not any(map(alive, client))
