"""Training accuracy by domain: in the curves, in stretches of rounds with intervals, on the page, in W&B's history."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import pytest
from scipy import stats

from tinytrain_dist.metatraining.curves import CurveRow, figures_of, read_curves, write_curves
from tinytrain_dist.reporting.training_page import render_training_page, training_document
from tinytrain_dist.reporting.training_run import TrainingRun, open_training
from tinytrain_dist.reporting.training_stretches import MIN_ROUNDS, NUM_STRETCHES, stretch_rounds, stretches
from tinytrain_dist.reporting.wandb_training import MAX_STEPS, history


def episodes_of(number: int) -> dict[str, list[float]]:
    """Two episodes of one domain in every round, one of the other in every third."""
    found = {"emoji": [0.2 + 0.01 * (number % 7), 0.6 - 0.02 * (number % 5)]}
    return found | ({"icons": [0.4 + 0.03 * (number % 4)]} if number % 3 == 0 else {})


def row_of(number: int) -> CurveRow:
    return CurveRow(
        round=number, loss=1.0, accuracy=0.5, learning_rate=1e-3, head_scale=10.0, validation_accuracy=None,
        episode_accuracies=episodes_of(number),
    )  # fmt: skip


def training(path: Path, rounds: int, *, planned: int) -> TrainingRun:
    path.mkdir(exist_ok=True)
    (path / "run.json").write_text(json.dumps({"kind": "meta_train", "identity": {}, "planned_rounds": planned}))
    write_curves(path / "curves.parquet", [row_of(number) for number in range(rounds)])
    return open_training(path)


def values(name: str, first: int, last: int) -> list[float]:
    return [value for number in range(first, last + 1) for value in episodes_of(number).get(name, [])]


def test_curves_keep_every_episode_and_older_files_open(tmp_path: Path) -> None:
    path = tmp_path / "curves.parquet"
    rows = [row_of(number) for number in range(4)]
    rows[2]["episode_accuracies"], rows[3]["validation_accuracy"] = None, {"emoji": 0.5}
    write_curves(path, rows)
    assert read_curves(path) == rows
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["episode_accuracies"]), path)
    assert read_curves(path) == [CurveRow(**{**row, "episode_accuracies": None}) for row in rows]  # type: ignore[typeddict-item]
    assert figures_of(read_curves(path)[0]) == {
        "loss": 1.0, "accuracy": 0.5, "learning_rate": 1e-3, "head_scale": 10.0
    }  # fmt: skip
    assert figures_of(rows[0])["accuracy/emoji"] == pytest.approx(0.4)


def test_a_stretch_is_the_mean_of_its_episodes_with_their_t_interval(tmp_path: Path) -> None:
    run = training(tmp_path / "t", 23, planned=40)
    assert stretch_rounds(run) == MIN_ROUNDS == 5
    found = list(stretches(run))
    assert [(stretch.first, stretch.last) for stretch in found] == [(0, 4), (5, 9), (10, 14), (15, 19), (20, 22)]
    for stretch in found:
        assert set(stretch.domains) == {"emoji", "icons"}
        for name, estimate in stretch.domains.items():
            sample = values(name, stretch.first, stretch.last)
            assert (estimate.num, estimate.mean) == (len(sample), pytest.approx(fmean(sample)))
            if len(sample) == 1:
                assert estimate.low is None and f"accuracy/{name}/low" not in stretch.figures()
                continue
            low, high = stats.t.interval(0.95, len(sample) - 1, loc=fmean(sample), scale=stats.sem(sample))
            assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))
    assert [len(values("icons", s.first, s.last)) for s in found] == [2, 2, 1, 2, 1]


def test_stretches_are_known_from_the_plan(tmp_path: Path) -> None:
    for rounds in (0, 1, 500, 1000):
        run = training(tmp_path / "t", rounds, planned=1000)
        assert stretch_rounds(run) == 1000 // NUM_STRETCHES == 25
        assert len(list(stretches(run))) == -(-rounds // 25)


def test_the_page_shows_them(tmp_path: Path) -> None:
    run = training(tmp_path / "t", 10, planned=10)
    by_domain = {domain["name"]: domain["points"] for domain in training_document(run)["by_domain"]}
    assert [point[0] for point in by_domain["icons"]] == [2.0, 7.0]
    x, mean, low, high, num = by_domain["emoji"][1]
    assert (x, mean, num) == (7.0, pytest.approx(100 * fmean(values("emoji", 5, 9)), abs=0.01), 10)
    assert low < mean < high
    page = render_training_page(run)
    assert "a stretch of 5 rounds" in page and "t-interval over those episodes" in page
    none = training(tmp_path / "none", 0, planned=10)
    assert training_document(none)["by_domain"] == [] and "chart-domains" in render_training_page(none)


def test_the_history_has_each_round_and_at_the_end_of_a_stretch_its_interval(tmp_path: Path) -> None:
    found = dict(history(training(tmp_path / "t", 12, planned=12)))
    assert list(found) == list(range(12))
    for number, figures in found.items():
        assert figures["accuracy/emoji"] == pytest.approx(fmean(episodes_of(number)["emoji"]))
        assert ("accuracy/icons" in figures) == (number % 3 == 0)
        assert ("accuracy/emoji/low" in figures) == (number in (4, 9))
    assert found[9]["accuracy/emoji/mean"] == pytest.approx(fmean(values("emoji", 5, 9)))
    assert (found[9]["accuracy/emoji/episodes"], found[9]["accuracy/icons/episodes"]) == (10, 2)


@pytest.mark.parametrize("planned", [12, MAX_STEPS + 40])
def test_rounds_that_come_in_pieces_give_the_same_history(tmp_path: Path, planned: int) -> None:
    """What is logged while a training runs is what is logged of it afterwards."""
    run = training(tmp_path / "t", 0, planned=planned)
    sent: list[tuple[int, dict[str, float]]] = []
    for number in range(600 if planned > 12 else 12):
        run.curves.append(row_of(number))
        if number % 7 == 0:
            sent += history(run, first=sent[-1][0] + 1 if sent else 0, over=False)
    sent += history(run, first=sent[-1][0] + 1)
    assert sent == history(run) and sent[-1][0] == run.curves[-1]["round"]
    assert len(sent) <= len(run.curves) * MAX_STEPS / planned + NUM_STRETCHES + 1
    assert history(run, first=5) == [pair for pair in sent if pair[0] >= 5]  # a W&B run that has five goes on
