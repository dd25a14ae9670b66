"""One, two and four real Ray workers, and a number that changes, give the weights of the serial run, bit for bit."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import below

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.execution.settings import ExecutorSettings, cluster
from tinytrain_dist.metatraining.pretrain_settings import PretrainSettings
from tinytrain_dist.metatraining.pretraining import pretrain
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.metatraining.training import meta_train

pytestmark = pytest.mark.slow
Train = Callable[..., TrainingResult]
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """A cluster whose head has one CPU, joined by this process for the whole module."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        with cluster(ExecutorSettings(address=made.address)):
            yield made
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def train(tiny: MetaTrainSettings, data_root: str, tmp_path_factory: pytest.TempPathFactory) -> Train:
    settings = replace(tiny, num_episodes=24)

    def run(name: str, executor: ExecutorSettings, **options: Any) -> TrainingResult:
        return meta_train(settings, root=tmp_path_factory.mktemp(name), executor=executor, roots=[data_root], **options)

    return run


@pytest.fixture(scope="module")
def wanted(train: Train) -> TrainingResult:
    return train("serial", ExecutorSettings(kind="serial"))


def assert_equal(found: TrainingResult, wanted: TrainingResult) -> None:
    states = [load_checkpoint(result.weights_path).state for result in (found, wanted)]
    np.testing.assert_array_equal(*states)
    assert (found.weights_hash, found.validation) == (wanted.weights_hash, wanted.validation)


def test_one_worker(ray_cluster: Any, train: Train, wanted: TrainingResult) -> None:
    assert_equal(train("one", ExecutorSettings(num_workers=1)), wanted)


class Operator:
    """Adds a node after the second round, lets its worker start, and takes the node away two rounds later."""

    def __init__(self, cluster: Any) -> None:
        self._cluster, self._node, self.waited_for_worker = cluster, None, False

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        if not any(name.endswith("/loss") for name in values):
            return
        if step == 0:
            self._node = self._cluster.add_node(num_cpus=1)
        elif step == 1:
            self.waited_for_worker = wait_for_workers(2)
        elif step == 3:
            self._cluster.remove_node(self._node, allow_graceful=False)

    def note(self, message: str) -> None:
        raise AssertionError(message)


def wait_for_workers(count: int) -> bool:
    """Wait until so many actors have answered that they are ready: Ray names one ``ray::_Host`` when it is idle."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if sum(process.command.strip() == "ray::_Host" for process in below(os.getpid())) == count:
            return True
        time.sleep(0.05)
    return False


def test_a_worker_that_joins_and_leaves_with_its_node(
    ray_cluster: Any, train: Train, wanted: TrainingResult, caplog: pytest.LogCaptureFixture
) -> None:
    operator = Operator(ray_cluster)
    with caplog.at_level(logging.INFO):
        found = train("elastic", ExecutorSettings(), run_logger=operator)
    assert operator.waited_for_worker, "the second worker never got ready"
    assert "the cluster has room for 2: 2 workers instead of 1" in caplog.text
    assert "1 workers instead of 2" in caplog.text or "a worker died" in caplog.text
    assert_equal(found, wanted)


def test_two_and_four_workers(ray_cluster: Any, train: Train, wanted: TrainingResult) -> None:
    ray_cluster.add_node(num_cpus=3)
    for workers in (2, 4):
        assert_equal(train(f"workers-{workers}", ExecutorSettings(num_workers=workers)), wanted)


def test_two_workers_of_a_pretraining(ray_cluster: Any, data_root: str, tmp_path: Path) -> None:
    """Views, the teacher's answers and the training itself; runs after the cluster has grown."""
    teacher = tmp_path / "teacher.safetensors"
    card = CheckpointCard(initialization="random", resolution=32)
    save_checkpoint(teacher, build_backbone("mobilenet_v2_w0.2", seed=5), card)
    settings = PretrainSettings(
        backbone="mobilenet_v2_w0.1", resolution=32, domains=(("stripes", 1.0),), teacher=str(teacher),
        teacher_resolution=48, views_per_image=4, epochs=1, batch_size=24, batches_per_round=3, validation_episodes=3,
        validation_way=3, validation_shot=2, validation_query=2,
    )  # fmt: skip
    serial, two = (
        pretrain(settings, root=tmp_path / executor.kind, executor=executor, roots=[data_root])
        for executor in (ExecutorSettings(kind="serial"), ExecutorSettings(num_workers=2))
    )
    assert serial.num_rounds == 4
    assert_equal(two, serial)
