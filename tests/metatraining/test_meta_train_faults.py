"""Real kills: an actor, then the driver with the learner, then a damaged checkpoint."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import below, kill

from tinytrain_dist.backbones.checkpoint import load_checkpoint
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.metatraining.training import meta_train
from tinytrain_dist.verbs.compose import compose_job
from tinytrain_dist.verbs.settings_of import meta_train_settings

pytestmark = pytest.mark.slow
DEADLINE_S = 120.0


def words(data_root: str) -> list[str]:
    return [
        "backbone.name=mobilenet_v2_w0.1", "backbone.resolution=32", f"data.roots=[{data_root}]",
        "meta_train.domains=[stripes]", "meta_train.way=[3,3]", "meta_train.shot=[1,2]", "meta_train.query=[2,2]",
        "meta_train.num_episodes=144", "meta_train.episodes_per_round=4", "meta_train.checkpoint_every=1",
        "meta_train.validation_every=12", "meta_train.validation_episodes=3", "meta_train.validation_way=3",
        "meta_train.validation_shot=2", "meta_train.validation_query=2", "meta_train.keep_best=true", "run.id=job",
        "wandb.mode=disabled",
    ]  # fmt: skip


def start(root: Path, data_root: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tinytrain_dist", "meta-train", *words(data_root), f"run.root={root}", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE_S:.0f} s for {what}"
        time.sleep(0.02)


def rounds(root: Path) -> list[int]:
    return sorted(int(path.name[6:12]) for path in root.glob("job/checkpoints/round-*.learner.safetensors"))


def actors(pid: int) -> list[int]:
    return [process.pid for process in below(pid) if process.command.startswith("ray::_Host")]


@contextlib.contextmanager
def cleaned_up(process: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Give the two actors of a job; end what the job leaves behind, and only that."""
    left: list[int] = []
    try:
        wait_for(lambda: len(actors(process.pid)) == 2 or process.poll() is not None, "two actors")
        left = [child.pid for child in below(process.pid)]
        yield actors(process.pid)
    finally:
        left += [child.pid for child in below(process.pid)]
        process.kill()
        process.communicate()
        for pid in left:
            kill(pid)


def kill_job_and_driver(root: Path, data_root: str) -> int:
    """Run the job until an actor was killed, then the whole job; return the newest checkpoint's round."""
    job = start(root, data_root, "executor.num_workers=2")
    with cleaned_up(job) as two:
        wait_for(lambda: bool(rounds(root)) or job.poll() is not None, "a first checkpoint")
        assert kill(two[0])
        before = rounds(root)[-1]
        wait_for(lambda: rounds(root)[-1] > before + 2 or job.poll() is not None, "rounds after the actor's death")
        job.kill()
        assert job.wait(timeout=30) == -9, "the job was over before it was killed"
    return rounds(root)[-1]


def test_killed_actor_killed_driver_and_a_damaged_checkpoint_change_nothing(data_root: str, tmp_path: Path) -> None:
    settings = meta_train_settings(compose_job(words(data_root)))
    root = tmp_path / "disturbed"
    last = kill_job_and_driver(root, data_root)
    assert last < settings.num_rounds, "the job was over before it was killed"
    newest = root / "job" / "checkpoints" / f"round-{last:06d}.weights.safetensors"
    data = bytearray(newest.read_bytes())
    data[-2] ^= 0x40
    newest.write_bytes(bytes(data))

    again = start(root, data_root, "executor.kind=serial")  # while the undisturbed run is made here
    serial = ExecutorSettings(kind="serial")
    wanted = meta_train(settings, root=tmp_path / "undisturbed", executor=serial, roots=[data_root])
    _, said = again.communicate(timeout=DEADLINE_S)
    assert again.returncode == 0, said
    assert f"checkpoint of round {last} is not used" in said
    found = load_checkpoint(root / "job" / "weights.safetensors")
    assert found.hash == wanted.weights_hash
    assert (found.state == load_checkpoint(wanted.weights_path).state).all()
