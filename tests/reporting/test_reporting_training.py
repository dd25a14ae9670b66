"""The page of a training, and what ``report`` does with runs that are not as they should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_run import Row, failed_row, grid_rows

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.metatraining.curves import CurveRow, write_curves
from tinytrain_dist.reporting.training_log import SPEED_FILE, TrainingLog, read_speed
from tinytrain_dist.reporting.training_page import MAX_POINTS, render_training_page, thinned, training_document
from tinytrain_dist.reporting.training_run import is_training, open_training
from tinytrain_dist.reporting.wandb_training import MAX_STEPS, history

MakeRun = Callable[..., Path]
HOSTILE = "</script><script>window.hacked=1</script>"


def curve(num_rounds: int) -> list[CurveRow]:
    return [
        CurveRow(
            round=r, loss=2.0 / (1 + r), accuracy=0.2 + 0.5 * r / num_rounds, learning_rate=1e-2 / (1 + r),
            head_scale=10.0, validation_accuracy={"emoji": 0.5, HOSTILE: 0.4} if r % 10 == 9 else None,
            episode_accuracies=None,
        )
        for r in range(num_rounds)
    ]  # fmt: skip


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A finished meta-training of 40 rounds."""
    path = tmp_path / "meta-1"
    path.mkdir()
    record = {
        "kind": "meta_train", "weights_hash": "c0ffee", "num_rounds": 40,
        "settings": {"backbone": "mcunet", "num_episodes": 80, "episodes_per_round": 2, "api_key": "s3cr3t-0123456789"},
        "identity": {"seed": 0}, "versions": {"torch": "2.13.0"},
        "validation": {"emoji": {"accuracy": 0.6, "half_width": 0.03, "num_episodes": 60}},
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(record))
    (path / "_SUCCESS").touch()
    (path / "weights.safetensors").write_bytes(b"weights")
    write_curves(path / "curves.parquet", curve(40))
    return path


def test_the_page_of_a_training_holds_its_curves(training: Path) -> None:
    log = TrainingLog()
    for step in range(40):
        log.log({"meta_train/slots_per_second": 5.0 + step % 2, "meta_train/loss": 1.0}, step=step)
    log.save(training)
    run = open_training(training)
    charts = {chart["name"]: chart for chart in training_document(run)["charts"]}
    assert set(charts) == {"loss", "accuracy", "learning_rate", "speed"}
    assert charts["loss"]["x"] == list(range(40)) and charts["loss"]["y"][3] == 0.5
    assert charts["speed"]["y"][:2] == [5.0, 6.0]
    (emoji,) = [d for d in training_document(run)["validation"] if d["name"] == "emoji"]
    assert emoji == {"name": "emoji", "points": [[9, 50.0], [19, 50.0], [29, 50.0], [39, 50.0]], "final": [60.0, 3.0]}
    text = render_training_page(run)
    assert "Held-out classes of emoji: 60.0 ± 3.0 % over 60 episodes" in text
    assert "Median speed: 5.5 episodes per second." in text
    assert "Loss went from 1.042 to 0.052" in text
    assert HOSTILE not in text and "s3cr3t" not in text
    assert render_training_page(open_training(training)) == text


def test_times_and_half_widths_reach_the_history_for_wandb(training: Path) -> None:
    log = TrainingLog()
    times = {"meta_train/seconds_on_workers": 1.5, "meta_train/seconds_of_step": 0.1}
    log.log({"meta_train/validation_half_width/emoji": 0.02, "meta_train/seconds_of_validation": 3.0}, step=9)
    log.log(times | {"meta_train/slots_per_second": 5.0, "meta_train/loss": 1.0}, step=9)
    log.save(training)
    found = dict(history(open_training(training)))[9]
    assert found["validation_half_width/emoji"] == 0.02 and found["seconds_of_validation"] == 3.0
    assert (found["seconds_on_workers"], found["seconds_of_step"], found["episodes_per_second"]) == (1.5, 0.1, 5.0)


def test_rates_kept_by_an_earlier_version_are_read(training: Path) -> None:
    pq.write_table(pa.table({"round": pa.array([3], pa.int32()), "slots_per_second": [2.5]}), training / SPEED_FILE)
    assert read_speed(training) == {3: 2.5} and open_training(training).speed == {3: 2.5}


def test_rates_of_a_resumed_training_are_added(training: Path) -> None:
    for steps in (range(0, 20), range(15, 40)):
        log = TrainingLog()
        for step in steps:
            log.log({"meta_train/slots_per_second": float(steps.start)}, step=step)
        log.save(training)
    assert read_speed(training) == {**dict.fromkeys(range(15), 0.0), **dict.fromkeys(range(15, 40), 15.0)}


@pytest.mark.parametrize("num", [0, 1, 999, 1000, 12345])
def test_thinning_keeps_mean_and_ends_of_every_stretch(num: int) -> None:
    found = thinned(range(num), [float(v % 7) for v in range(num)])
    assert len(found["x"]) == min(num, MAX_POINTS) == len(found["low"])
    for low, mean, high in zip(found["low"], found["y"], found["high"], strict=True):
        assert low is not None and mean is not None and high is not None and low <= mean <= high
    if num > MAX_POINTS:
        assert min(v for v in found["low"] if v is not None) == 0 and max(v or 0 for v in found["high"]) == 6


def test_the_history_for_wandb_is_bounded_and_ends_with_the_last_round(training: Path) -> None:
    write_curves(training / "curves.parquet", curve(MAX_STEPS + 5001))
    rows = history(open_training(training))
    assert len(rows) <= MAX_STEPS + 1 and rows[0][0] == 0 and rows[-1][0] == MAX_STEPS + 5000
    assert rows[0][1] == {"loss": 2.0, "accuracy": 0.2, "learning_rate": 0.01, "head_scale": 10.0}


def test_report_knows_a_training(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_training(training) and not is_training(training.parent)
    assert main(["report", str(training), "--json"]) == ExitCode.DONE
    printed = json.loads(capsys.readouterr().out)
    assert printed["page"] == str(training / "report.html") and printed["wandb"] is None
    (training / "_SUCCESS").unlink()
    (training / "curves.parquet").unlink()
    assert main(["report", str(training)]) == ExitCode.DONE
    text = (training / "report.html").read_text()
    assert "unfinished: the same command resumes it" in text and "0 of 40 rounds are recorded." in text


@pytest.mark.parametrize(
    ("rows", "code", "note"),
    [
        (grid_rows(devices=["only"]), ExitCode.DONE, "the run has one device"),
        ([failed_row(), failed_row(method="tinytrain")], ExitCode.TOO_MANY_FAILURES, "all 2 rows failed"),
    ],
    ids=["one device", "only failures"],
)
def test_a_run_that_is_not_as_it_should_be_says_so_and_shows_what_is_there(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], rows: list[Row], code: ExitCode, note: str
) -> None:
    path = make_run(rows)
    assert main(["report", str(path)]) == code
    assert note in capsys.readouterr().err
    text = (path / "report.html").read_text()
    assert f'<p class="notice">NOTE: {note}' in text and '"cells":[{' in text


@pytest.mark.parametrize("how", ["empty", "vanished"])
def test_without_rows_there_is_no_page(make_run: MakeRun, capsys: pytest.CaptureFixture[str], how: str) -> None:
    path = make_run()
    shutil.rmtree(path / "results" if how == "empty" else path)
    assert main(["report", str(path)]) == ExitCode.STORAGE
    said = capsys.readouterr().err
    assert ("the run has produced no rows yet" if how == "empty" else "no such run directory") in said
    assert not (path / "report.html").exists()
