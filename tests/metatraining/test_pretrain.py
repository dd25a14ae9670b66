"""Pre-training on a tiny domain: views, both objectives, resuming, damage, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.views import NUM_DRAWS, make_views
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.foundation.errors import CheckpointError, ConfigError
from tinytrain_dist.metatraining.batch_worker import BatchWorker
from tinytrain_dist.metatraining.curves import read_curves
from tinytrain_dist.metatraining.objectives import Objective
from tinytrain_dist.metatraining.pretrain_settings import PretrainSettings
from tinytrain_dist.metatraining.pretraining import pretrain
from tinytrain_dist.metatraining.source_images import SourceImages
from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.metatraining.view_worker import ViewSlot, ViewWorker

SERIAL = ExecutorSettings(kind="serial")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_checkpoint(
        path, build_backbone("mobilenet_v2_w0.2", seed=5), CheckpointCard(initialization="random", resolution=32)
    )
    return path


@pytest.fixture(scope="module")
def small(teacher: Path) -> PretrainSettings:
    return PretrainSettings(
        backbone="mobilenet_v2_w0.1", resolution=32, domains=(("stripes", 1.0),), teacher=str(teacher),
        teacher_resolution=48, views_per_image=3, epochs=1, batch_size=24, batches_per_round=2, validation_episodes=3,
        validation_way=3, validation_shot=2, validation_query=2, checkpoint_every=1,
    )  # fmt: skip


def train(settings: PretrainSettings, root: Path, data_root: str) -> TrainingResult:
    return pretrain(settings, root=root, executor=SERIAL, roots=[data_root])


@pytest.fixture(scope="module")
def undisturbed(small: PretrainSettings, data_root: str, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(small, tmp_path_factory.mktemp("pretrain"), data_root)


def test_the_run_leaves_a_checkpoint_of_kind_pretrained(undisturbed: TrainingResult, teacher: Path) -> None:
    found = load_checkpoint(undisturbed.weights_path)
    assert found.card.initialization == "pretrained" and found.head_scale is None
    assert load_checkpoint(teacher).hash in found.card.teacher and found.card.hours is not None and found.card.machine
    assert undisturbed.num_rounds == 4  # 12 classes x 6 images x 3 views / (24 x 2)
    assert len(read_curves(undisturbed.run_folder / "curves.parquet")) == 4
    assert list(undisturbed.run_folder.parent.glob("views-*/shard-*.safetensors"))
    assert set(undisturbed.validation) == {"stripes"}


def test_interrupted_with_a_damaged_shard_it_ends_with_the_same_weights(
    undisturbed: TrainingResult, small: PretrainSettings, data_root: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    learn, calls = BatchWorker.learn, [0]

    def interrupted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return learn(*args)

    monkeypatch.setattr(BatchWorker, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(small, tmp_path, data_root)
    shard = next(tmp_path.glob("views-*/shard-00000.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(bytes(data))
    result = train(small, tmp_path, data_root)
    assert result.resumed_round == 1 and result.weights_hash == undisturbed.weights_hash


@pytest.mark.slow
def test_supervised_learns_the_joint_classes(small: PretrainSettings, data_root: str, tmp_path: Path) -> None:
    settings = replace(small, objective="supervised", teacher=None, epochs=6, batches_per_round=1, learning_rate=5e-3)
    result = train(settings, tmp_path, data_root)
    rows = read_curves(result.run_folder / "curves.parquet")
    first, last = (np.mean([row["loss"] for row in part]) for part in (rows[:4], rows[-4:]))
    assert result.num_rounds == 54 and last < first - 0.1


def test_a_view_depends_on_its_image_and_number_alone(data_root: str) -> None:
    worker = ViewWorker(("stripes",), 32, (data_root,), None)
    together = worker.make(ViewSlot(rows=((0, 0), (7, 1), (7, 2)), seed=3)).images
    alone = worker.make(ViewSlot(rows=((7, 1),), seed=3)).images
    np.testing.assert_array_equal(together[1], alone[0])
    assert (together[1] != together[2]).any()
    assert (worker.make(ViewSlot(rows=((7, 1),), seed=4)).images != alone).any()


def test_a_view_without_changes_is_the_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    draws = np.full((2, 2, NUM_DRAWS), 0.999)
    draws[:, :, [0, 1, 2, 4, 5, 14, 15]] = [1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]  # whole image, upright, plain colours
    assert np.abs(make_views(images, draws).astype(int) - images).max() <= 1
    draws[:, :, 16] = 0.3  # pasted
    partners = 255 - images
    pasted = make_views(images, draws, partners=partners)
    same = np.abs(pasted.astype(int) - images).max(axis=1) <= 1
    other = np.abs(pasted.astype(int) - partners).max(axis=1) <= 1
    assert (same | other).all() and 0.1 < other.mean() < 0.7


def test_source_images_number_train_classes_only(data_root: str) -> None:
    domain = open_domain("stripes", roots=[data_root])
    source = SourceImages([domain])
    assert source.num_classes == 12 and len(source) == 72
    assert set(domain.labels[source.image_of].tolist()) == set(domain.classes("train"))
    np.testing.assert_array_equal(np.bincount(source.label_of), np.full(12, 6))


def test_imitation_is_zero_for_the_teacher_itself() -> None:
    torch.manual_seed(0)
    features = functional.normalize(torch.randn(8, 5), dim=1)
    objective = Objective(name="distill", num_outputs=5, temperature=0.1)
    head = torch.cat([torch.tensor([10.0]), torch.eye(5).flatten()])
    loss, right = objective.loss(features, head, features)
    assert float(loss) == pytest.approx(0.0, abs=1e-5) and right == 1.0
    other, _ = objective.loss(features.flip(0), head, features)
    assert float(other) > 0.5


def test_what_the_teacher_must_be_is_said(small: PretrainSettings, data_root: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pretrain\.teacher: found null"):
        replace(small, teacher=None)
    with pytest.raises(ConfigError, match="did you mean 'deep_sort_wheel'"):
        train(replace(small, teacher="deep_sort_whel"), tmp_path, data_root)
    with pytest.raises(CheckpointError, match="nothing"):
        train(replace(small, teacher=str(tmp_path / "nothing.safetensors")), tmp_path, data_root)
    with pytest.raises(ConfigError, match=r"pretrain\.batch_size: found 9999"):
        train(replace(small, batch_size=9999), tmp_path, data_root)
    with pytest.raises(ConfigError, match=r"pretrain\.objective"):
        replace(small, objective="destill")  # type: ignore[arg-type]
