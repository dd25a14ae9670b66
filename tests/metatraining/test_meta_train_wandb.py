"""What a meta-training leaves in W&B: written offline by the job itself, read back with the client's own command."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb_offline import records, steps

from tinytrain_dist.backbones.card import read_card
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.metatraining.curves import read_curves
from tinytrain_dist.metatraining.episode_worker import EpisodeWorker
from tinytrain_dist.reporting import wandb_live
from tinytrain_dist.reporting.training_run import open_training
from tinytrain_dist.reporting.wandb_training import history, log_training_to_wandb
from tinytrain_dist.verbs import meta_train as meta_train_verb
from tinytrain_dist.verbs import training_outputs

pytestmark = pytest.mark.slow
ROUNDS = 8


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(wandb_live, "EVERY_S", 0.05)
    start_logging()
    logging.getLogger("tinytrain_dist").propagate = True


def words(data_root: str, root: Path, *more: str) -> list[str]:
    return [
        "meta-train", "backbone.name=mobilenet_v2_w0.1", "backbone.resolution=16", f"data.roots=[{data_root}]",
        "meta_train.domains=[stripes]", "meta_train.way=[3,3]", "meta_train.shot=[1,1]", "meta_train.query=[1,1]",
        f"meta_train.num_episodes={2 * ROUNDS}", "meta_train.episodes_per_round=2", "meta_train.validation_every=1",
        "meta_train.validation_episodes=2", "meta_train.validation_way=2", "meta_train.validation_shot=1",
        "meta_train.validation_query=1", "executor.kind=serial", "run.id=w", f"run.root={root}",
        "wandb.mode=offline", *more,
    ]  # fmt: skip


def offline_folders(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_mtime)


def calling(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> None:
    """Call ``before`` with the number of the episode before each is learned."""
    learn, calls = EpisodeWorker.learn, [0]

    def watched(*args: Any) -> Any:
        before(calls[0])
        calls[0] += 1
        return learn(*args)

    monkeypatch.setattr(EpisodeWorker, "learn", watched)


def test_times_intervals_pictures_and_a_checkpoint_with_its_card(data_root: str, tmp_path: Path) -> None:
    assert main(words(data_root, tmp_path)) == 0
    assert not {"WANDB_DATA_DIR", "WANDB_CACHE_DIR"} & set(os.environ)
    assert not (tmp_path / "home").exists()
    run = tmp_path / "w"
    (folder,) = offline_folders(run)
    found = steps(folder)
    for name in ("seconds_on_workers", "seconds_of_step", "seconds_of_validation", "episodes_per_second", "loss"):
        assert name in found[1]
    assert "validation_half_width/stripes" in found[1] and "validation_accuracy/stripes" in found[1]
    assert found[0]["episodes.count"] == 2  # the round's
    shown = {file.read_bytes() for file in (folder / "files" / "media").rglob("*.png")}
    assert shown == {file.read_bytes() for file in (run / "episodes").glob("*.png")} and len(shown) == 2
    (artifact,) = records(folder, "artifact")
    assert json.loads(artifact["metadata"])["card"] == read_card(run / "weights.safetensors").model_dump(mode="json")


def test_what_is_logged_while_it_runs_is_what_is_logged_afterwards(data_root: str, tmp_path: Path) -> None:
    assert main(words(data_root, tmp_path)) == 0
    run = open_training(tmp_path / "w")
    (live,) = offline_folders(run.path)
    afterwards = log_training_to_wandb(run, mode="offline")
    assert afterwards is not None and afterwards != live
    ours, theirs = ({step: shown(row) for step, row in steps(folder).items()} for folder in (live, afterwards))
    assert ours == theirs and list(ours) == list(range(ROUNDS + 1))
    for step, figures in history(run):
        assert {name: ours[step][name] for name in figures} == pytest.approx(figures)
    accuracies = [row["episode_accuracies"] for row in read_curves(run.path / "curves.parquet")]
    assert ours[3]["accuracy/stripes"] == pytest.approx(sum((accuracies[3] or {})["stripes"]) / 2)
    assert ours[4]["accuracy/stripes/episodes"] == 10 and ours[ROUNDS]["accuracy/stripes/episodes"] == 6
    first, second = (records(folder, "run")[0]["run_id"] for folder in (live, afterwards))
    assert first == second


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a reader sees of a step: no clocks."""
    return {name: value for name, value in row.items() if name not in ("_runtime", "_timestamp")}


def test_pictures_are_there_before_the_first_round_and_rounds_before_the_last(
    data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = tmp_path / "w", []

    def look(episode: int) -> None:
        if episode == 0:
            assert len(list((run / "episodes").glob("*.png"))) == 2
            assert json.loads((run / "run.json").read_text())["planned_rounds"] == ROUNDS
        if episode == 2 * ROUNDS - 1:
            wait_until(lambda: ROUNDS - 2 in logged)
            seen.extend(logged)

    logged: list[int] = []
    watch_steps(monkeypatch, logged)
    calling(monkeypatch, look)
    assert main(words(data_root, tmp_path)) == 0
    assert [step for step in seen if step is not None] == [0, *range(ROUNDS - 1)]  # pictures and round 0 share a step


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def watch_steps(monkeypatch: pytest.MonkeyPatch, logged: list[int]) -> None:
    """Note the step of every call to the real client."""
    spoil(monkeypatch, lambda writer, step: logged.append(step))


def spoil(monkeypatch: pytest.MonkeyPatch, act: Callable[[Any, int], None], *, also_online: bool = False) -> None:
    """Call ``act`` with the client's run and the step before each is logged, for real."""
    init = wandb.init

    def opened(**options: Any) -> Any:
        online = options["mode"] == "online"
        writer = init(**{**options, "mode": "offline"})
        log = writer.log

        def logging_(values: Any, step: int | None = None, commit: bool | None = None) -> None:
            if online or not also_online:
                act(writer, step)  # type: ignore[arg-type]
            log(values, step=step, commit=commit)

        writer.log = logging_
        return writer

    monkeypatch.setattr(wandb, "init", opened)


def refuse_after(last: int) -> Callable[[Any, int | None], None]:
    def act(writer: Any, step: int | None) -> None:
        if step is not None and step > last:
            raise RuntimeError("the connection was reset")

    return act


def test_a_client_that_fails_in_the_middle_is_said_once_and_the_training_goes_on(
    data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(monkeypatch, refuse_after(2))
    assert main(words(data_root, tmp_path)) == 0
    run = tmp_path / "w"
    assert [row["round"] for row in read_curves(run / "curves.parquet")] == list(range(ROUNDS))
    said = [record.getMessage() for record in caplog.records if "W&B" in record.getMessage()]
    assert said == ["W&B: not written: RuntimeError: the connection was reset"]
    (folder,) = offline_folders(run)
    assert list(steps(folder)) == [0, 1, 2] and records(folder, "exit")[0]["exit_code"] == 1


def test_online_that_fails_in_the_middle_leaves_a_whole_offline_copy(
    data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "e1c5" * 10)
    spoil(monkeypatch, refuse_after(2), also_online=True)
    calling(monkeypatch, lambda episode: wait_until(lambda: episode != 8 or "online failed" in caplog.text))
    assert main(words(data_root, tmp_path, "wandb.mode=online")) == 0
    said = [record.getMessage() for record in caplog.records if "W&B" in record.getMessage()]
    assert said == ["W&B: online failed (RuntimeError: the connection was reset); an offline copy is kept"]
    whole = offline_folders(tmp_path / "w")[-1]
    assert list(steps(whole)) == list(range(ROUNDS + 1)) and "episodes.count" in steps(whole)[0]
    assert len(records(whole, "artifact")) == 1


def test_a_client_that_cannot_be_opened_or_finished_does_not_matter(
    data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    init = wandb.init

    def unfinished(**options: Any) -> Any:
        writer = init(**options)
        finish = writer.finish

        def broken(exit_code: int) -> None:
            finish(exit_code=exit_code)
            raise OSError("no space left on device")

        writer.finish = broken
        return writer

    def refused(**_: Any) -> Any:
        raise RuntimeError("no")

    for name, fault in (("a", unfinished), ("b", refused)):
        caplog.clear()
        monkeypatch.setattr(wandb, "init", fault)
        assert main(words(data_root, tmp_path, f"run.id={name}")) == 0
        assert caplog.text.count("W&B: not written") == 1
        assert (tmp_path / name / "_SUCCESS").exists()


def test_pictures_and_pages_that_fail_do_not_fail_the_training(
    data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("an image of another shape")

    monkeypatch.setattr(meta_train_verb, "save_episode_pictures", broken)
    monkeypatch.setattr(training_outputs, "open_training", raising_while_running(tmp_path / "w" / "_SUCCESS"))
    assert main(words(data_root, tmp_path)) == 0
    assert "no pictures of sample episodes: ValueError: an image of another shape" in caplog.text
    assert "no W&B run of the training: ValueError: not now" in caplog.text
    assert "page of the training is not up to date: ValueError: not now" in caplog.text
    assert (tmp_path / "w" / "report.html").exists()


def raising_while_running(success: Path) -> Callable[[Path], Any]:
    """Return ``open_training`` that works once the training is over."""

    def opened(folder: Path) -> Any:
        if not success.exists():
            raise ValueError("not now")
        return open_training(folder)

    return opened


def test_a_pre_training_has_batches_and_nothing_by_domain(data_root: str, tmp_path: Path) -> None:
    words = [
        "pretrain", "backbone.name=mobilenet_v2_w0.1", "backbone.resolution=32", f"data.roots=[{data_root}]",
        "pretrain.domains=[stripes]", "pretrain.objective=supervised", "pretrain.teacher=null", "pretrain.epochs=1",
        "pretrain.views_per_image=1", "pretrain.batch_size=12", "pretrain.validation_episodes=2",
        "pretrain.validation_way=2", "pretrain.validation_shot=1", "pretrain.validation_query=1",
        "executor.kind=serial", "run.id=p", f"run.root={tmp_path}", "wandb.mode=offline",
    ]  # fmt: skip
    assert main(words) == 0
    (folder,) = offline_folders(tmp_path / "p")
    found = steps(folder)
    assert list(found) == list(range(7)) and "report.path" in found[6]
    assert "batches_per_second" in found[0] and not [name for name in found[0] if name.startswith("accuracy/")]
    assert all(row["episode_accuracies"] is None for row in read_curves(tmp_path / "p" / "curves.parquet"))
    assert open_training(tmp_path / "p").planned_rounds == 6
