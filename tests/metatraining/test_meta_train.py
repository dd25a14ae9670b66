"""Whole meta-trainings on a tiny domain: learning, resuming, reusing, refusing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinytrain_dist.backbones.checkpoint import load_checkpoint
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.foundation.errors import CheckpointError, ConfigError, RunLockedError
from tinytrain_dist.metatraining.curves import read_curves
from tinytrain_dist.metatraining.episode_worker import EpisodeWorker
from tinytrain_dist.metatraining.run_folder import RunFolder
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.metatraining.training import meta_train
from tinytrain_dist.metatraining.validation import Validation

SERIAL = ExecutorSettings(kind="serial")


def train(settings: MetaTrainSettings, root: Path, data_root: str, **options: Any) -> TrainingResult:
    return meta_train(settings, root=root, executor=SERIAL, roots=[data_root], **options)


@pytest.fixture(scope="module")
def undisturbed(tiny: MetaTrainSettings, data_root: str, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(tiny, tmp_path_factory.mktemp("undisturbed"), data_root)


def weights_of(result: TrainingResult) -> np.ndarray:
    return load_checkpoint(result.weights_path).state


def test_run_folder_holds_what_the_result_says(undisturbed: TrainingResult) -> None:
    folder = undisturbed.run_folder
    found = load_checkpoint(undisturbed.weights_path)
    assert found.hash == undisturbed.weights_hash and found.card.initialization == "meta_trained"
    assert found.head_scale is not None and found.head_scale != 10.0
    assert found.card.hours is not None and 0 <= found.card.hours < 1 and found.card.machine
    assert (found.card.initial, found.card.teacher) == ("", "")
    assert found.card.metrics == {"validation_accuracy/stripes": undisturbed.validation["stripes"].accuracy}
    assert [row["round"] for row in read_curves(folder / "curves.parquet")] == [0, 1, 2]
    assert (folder / "_SUCCESS").exists() and json.loads((folder / "run.json").read_text())["exit_code"] == 0
    assert folder.name.startswith("meta-mobilenet_v2_w0.1-")


def test_a_finished_run_is_reused(undisturbed: TrainingResult, tiny: MetaTrainSettings, data_root: str) -> None:
    again = train(tiny, undisturbed.run_folder.parent, data_root)
    assert again.reused and again.weights_hash == undisturbed.weights_hash
    assert again.validation == undisturbed.validation


@pytest.mark.parametrize("stop_in_round", [0, 1, 2])
@pytest.mark.slow
def test_interrupted_and_resumed_gives_the_same_weights(
    undisturbed: TrainingResult, tiny: MetaTrainSettings, data_root: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, stop_in_round: int,
) -> None:  # fmt: skip
    learn, calls = EpisodeWorker.learn, [0]

    def interrupted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4 * stop_in_round + 2:
            raise KeyboardInterrupt
        return learn(*args)

    monkeypatch.setattr(EpisodeWorker, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny, tmp_path, data_root)
    assert not list(tmp_path.glob("*/_SUCCESS"))
    result = train(tiny, tmp_path, data_root)
    assert result.resumed_round == stop_in_round and result.weights_hash == undisturbed.weights_hash
    np.testing.assert_array_equal(weights_of(result), weights_of(undisturbed))
    assert read_curves(result.run_folder / "curves.parquet") == read_curves(undisturbed.run_folder / "curves.parquet")


@pytest.mark.parametrize("kind", ["weights", "learner"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    undisturbed: TrainingResult, tiny: MetaTrainSettings, data_root: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, kind: str,
) -> None:  # fmt: skip
    folder = tmp_path / undisturbed.run_folder.name
    shutil.copytree(undisturbed.run_folder, folder)
    (folder / "_SUCCESS").unlink()
    newest = folder / "checkpoints" / f"round-000003.{kind}.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 0x10
    newest.write_bytes(bytes(data))
    result = train(tiny, tmp_path, data_root)
    assert result.resumed_round == 2 and result.weights_hash == undisturbed.weights_hash
    assert "checkpoint of round 3 is not used" in caplog.text


def test_other_settings_under_the_same_id_are_refused_by_name(
    tiny: MetaTrainSettings, data_root: str, tmp_path: Path
) -> None:
    short = replace(tiny, num_episodes=4)
    train(short, tmp_path, data_root, run_id="mine")
    with pytest.raises(RunLockedError, match=r"seed: 0 -> 1"):
        train(replace(short, seed=1), tmp_path, data_root, run_id="mine")


def test_a_second_driver_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    first, second = (RunFolder(tmp_path, identity={"backbone": "b"}, run_id=None) for _ in range(2))
    with first.held(), pytest.raises(RunLockedError, match="held by process"), second.held():
        pass
    with second.held():
        pass


def test_a_checkpoint_of_another_backbone_is_refused(
    undisturbed: TrainingResult, tiny: MetaTrainSettings, data_root: str, tmp_path: Path
) -> None:
    settings = replace(tiny, backbone="mobilenet_v2_w0.2", initial_weights=str(undisturbed.weights_path))
    with pytest.raises(CheckpointError, match="architecture"):
        train(settings, tmp_path, data_root)


def test_it_can_start_from_a_checkpoint(
    undisturbed: TrainingResult, tiny: MetaTrainSettings, data_root: str, tmp_path: Path
) -> None:
    settings = replace(tiny, num_episodes=4, initial_weights=str(undisturbed.weights_path), learning_rate=1e-6)
    result = train(settings, tmp_path, data_root)
    moved = np.abs(weights_of(result) - weights_of(undisturbed)) / (1e-2 + np.abs(weights_of(undisturbed)))
    assert result.run_folder.name != undisturbed.run_folder.name and np.median(moved) < 1e-3
    card, before = (load_checkpoint(found.weights_path).card for found in (result, undisturbed))
    assert card.initial == before.content_hash and card.hours >= before.hours and before.data in card.data


@pytest.mark.slow
def test_the_best_weights_are_kept_also_across_an_interruption(
    tiny: MetaTrainSettings, data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(
        tiny, num_episodes=16, episodes_per_round=2, validation_every=2, keep_best=True, learning_rate=3e-2
    )
    whole = train(settings, tmp_path / "whole", data_root)
    scores = [row["validation_accuracy"] for row in read_curves(whole.run_folder / "curves.parquet")]
    means = [np.mean(list(score.values())) for score in scores if score]
    assert whole.best_round == 2 * (int(np.argmax(means)) + 1) and len(means) == 4
    assert np.mean([score.accuracy for score in whole.validation.values()]) == pytest.approx(max(means))

    learn, calls = EpisodeWorker.learn, [0]

    def interrupted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2 * 5 + 2:
            raise KeyboardInterrupt
        return learn(*args)

    monkeypatch.setattr(EpisodeWorker, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "cut", data_root)
    resumed = train(settings, tmp_path / "cut", data_root)
    assert resumed.resumed_round == 5
    assert (resumed.weights_hash, resumed.best_round) == (whole.weights_hash, whole.best_round)
    assert len(list(resumed.run_folder.glob("checkpoints/best-*"))) <= settings.checkpoints_kept
    kept = sorted(int(p.name[6:12]) for p in resumed.run_folder.glob("checkpoints/round-*.learner.safetensors"))
    assert kept == list(range(settings.num_rounds + 1))[-settings.checkpoints_kept :], "the newest, and no others"


def test_it_stops_when_validation_has_not_improved(tiny: MetaTrainSettings, data_root: str, tmp_path: Path) -> None:
    settings = replace(tiny, num_episodes=80, validation_every=1, patience=2, learning_rate=1e-6)  # learns nothing
    result = train(settings, tmp_path, data_root)
    assert result.num_rounds < 20 and result.best_round is None
    rows = read_curves(result.run_folder / "curves.parquet")
    means = [np.mean(list((row["validation_accuracy"] or {}).values())) for row in rows]
    assert len(rows) == result.num_rounds and max(means[:-2]) >= max(means[-2:])
    assert train(settings, tmp_path, data_root).reused


def test_validation_domains_are_seen_whole_and_never_a_source(tiny: MetaTrainSettings, data_root: str) -> None:
    with pytest.raises(ConfigError, match="stripes is a source domain"):
        replace(tiny, validation_domains=("stripes",))
    with pytest.raises(ConfigError, match="validation_every"):
        replace(tiny, keep_best=True)
    settings = replace(tiny, validation_domains=("fashion",))
    validation = Validation(settings, {"stripes": open_domain("stripes", roots=[data_root])}, [data_root])
    assert {slot.spec.split for slot in validation.slots["fashion"]} == {"all"}
    assert {slot.spec.split for slot in validation.slots["stripes"]} == {"valid"}
    assert settings.deciding() == tiny.deciding()  # without early stop it only watches


class Listener:
    """Collects what a run logs."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, set[str]]] = []

    def log(self, values: Any, *, step: int) -> None:
        self.steps.append((step, set(values)))

    def note(self, message: str) -> None:
        raise AssertionError(message)


def steps_with(listener: Listener, ending: str) -> Sequence[int]:
    return [step for step, names in listener.steps if any(name.endswith(ending) for name in names)]


@pytest.mark.slow
def test_learning_happens_on_classes_never_trained_on(data_root: str, tmp_path: Path, tiny: MetaTrainSettings) -> None:
    settings = replace(
        tiny, num_episodes=120, episodes_per_round=2, way=(5, 5), shot=(2, 2), learning_rate=6e-3, augment=False,
        validation_episodes=10, validation_every=30, validation_way=4, checkpoint_every=1000,
    )  # fmt: skip
    listener = Listener()
    result = train(settings, tmp_path, data_root, run_logger=listener)
    rows = read_curves(result.run_folder / "curves.parquet")
    first, last = (np.mean([row["loss"] for row in part]) for part in (rows[:10], rows[-10:]))
    assert last < 0.7 * first
    assert result.validation["stripes"].accuracy > 0.34  # chance is 0.25
    assert steps_with(listener, "validation_accuracy/stripes") == [29, 59, 60]
    assert steps_with(listener, "validation_half_width/stripes") == [29, 59]
    assert len(steps_with(listener, "/loss")) == 60
