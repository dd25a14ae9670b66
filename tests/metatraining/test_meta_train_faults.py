"""Real kills: an actor, then the driver with the learner, then a damaged checkpoint; and nodes that come and go."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinytrain_dist.backbones.checkpoint import load_checkpoint
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.training import meta_train
from tinytrain_dist.verbs.compose import compose_job
from tinytrain_dist.verbs.settings_of import meta_train_settings

pytestmark = pytest.mark.slow
DEADLINE_S = 120.0


def words(data_root: str) -> list[str]:
    return [
        "backbone.name=mobilenet_v2_w0.1", "backbone.resolution=32", f"data.roots=[{data_root}]",
        "meta_train.domains=[stripes]", "meta_train.way=[3,4]", "meta_train.shot=[1,2]", "meta_train.query=[2,2]",
        "meta_train.num_episodes=200", "meta_train.episodes_per_round=4", "meta_train.checkpoint_every=2",
        "meta_train.validation_every=10", "meta_train.validation_episodes=3", "meta_train.validation_way=3",
        "meta_train.validation_shot=2", "meta_train.validation_query=2", "meta_train.keep_best=true", "run.id=job",
    ]  # fmt: skip


def start(root: Path, data_root: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tinytrain_dist", "meta-train", *words(data_root), f"run.root={root}", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below ``pid`` with their command lines."""
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    found: set[int] = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: lines.get(child, "") for child in found - {pid}}


def wait_for(condition: Any, what: str) -> Any:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {DEADLINE_S:.0f} s for {what}")


def rounds(root: Path) -> list[int]:
    return sorted(int(path.name[6:12]) for path in root.glob("job/checkpoints/round-*.learner.safetensors"))


@contextlib.contextmanager
def cleaned_up(process: subprocess.Popen[str]) -> Iterator[None]:
    """End what the process leaves behind, and only that."""
    below: dict[int, str] = {}
    try:
        below = wait_for(lambda: actors(process.pid), "two actors")
        yield
    finally:
        process.kill()
        process.communicate()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def actors(pid: int) -> dict[int, str] | None:
    found = descendants(pid)
    return found if sum("ray::_Host" in line for line in found.values()) == 2 else None


def test_killed_actor_killed_driver_and_a_damaged_checkpoint_change_nothing(data_root: str, tmp_path: Path) -> None:
    settings = meta_train_settings(compose_job(words(data_root)))
    wanted = meta_train(
        settings, root=tmp_path / "undisturbed", executor=ExecutorSettings(kind="serial"), roots=[data_root]
    )
    root = tmp_path / "disturbed"
    job = start(root, data_root, "executor.num_workers=2")
    with cleaned_up(job):
        wait_for(lambda: rounds(root), "a first checkpoint")
        os.kill(next(pid for pid, line in descendants(job.pid).items() if "ray::_Host" in line), signal.SIGKILL)
        before = rounds(root)[-1]
        wait_for(lambda: rounds(root)[-1] > before + 2, "rounds after the actor's death")
        job.send_signal(signal.SIGKILL)
        assert job.wait(timeout=30) == -signal.SIGKILL
    assert rounds(root)[-1] < settings.num_rounds, "the job was over before it was killed"
    newest = root / "job" / "checkpoints" / f"round-{rounds(root)[-1]:06d}.weights.safetensors"
    data = bytearray(newest.read_bytes())
    data[-2] ^= 0x40
    newest.write_bytes(bytes(data))

    again = start(root, data_root, "executor.kind=serial")
    _, said = again.communicate(timeout=DEADLINE_S)
    assert again.returncode == 0, said
    assert f"checkpoint of round {int(newest.name[6:12])} is not used" in said
    found = load_checkpoint(root / "job" / "weights.safetensors")
    assert found.hash == wanted.weights_hash
    assert (found.state == load_checkpoint(wanted.weights_path).state).all()


class Operator:
    """Adds a node to the cluster early in the run and takes it away later."""

    def __init__(self, cluster: Any) -> None:
        self._cluster, self._node = cluster, None

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        if step == 2:
            self._node = self._cluster.add_node(num_cpus=2)
        elif step == 8 and self._node is not None:
            self._cluster.remove_node(self._node, allow_graceful=False)
            self._node = None

    def note(self, message: str) -> None:
        raise AssertionError(message)


def test_actors_join_and_leave_with_the_cluster(
    tiny: MetaTrainSettings, data_root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from ray.cluster_utils import Cluster

    settings = replace(tiny, num_episodes=48)
    wanted = meta_train(settings, root=tmp_path / "serial", executor=ExecutorSettings(kind="serial"), roots=[data_root])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        with caplog.at_level(logging.INFO):
            found = meta_train(
                settings, root=tmp_path / "elastic", executor=ExecutorSettings(address=cluster.address),
                roots=[data_root], run_logger=Operator(cluster),
            )  # fmt: skip
    finally:
        cluster.shutdown()
    assert "the cluster has 3 CPUs: 3 workers instead of 1" in caplog.text
    assert found.weights_hash == wanted.weights_hash
