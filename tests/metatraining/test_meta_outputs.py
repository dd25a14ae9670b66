"""What a training that is cut short leaves for readers, and what it needs of it to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinytrain_dist.backbones.checkpoint import load_checkpoint
from tinytrain_dist.cli import main
from tinytrain_dist.metatraining.curves import read_curves
from tinytrain_dist.metatraining.episode_worker import EpisodeWorker
from tinytrain_dist.reporting.training_log import read_figures

ROUNDS, STOPPED_IN = 6, 4


def words(data_root: str, root: Path) -> list[str]:
    return [
        "meta-train", "backbone.name=mobilenet_v2_w0.1", "backbone.resolution=16", f"data.roots=[{data_root}]",
        "meta_train.domains=[stripes]", "meta_train.way=[3,3]", "meta_train.shot=[1,1]", "meta_train.query=[1,1]",
        f"meta_train.num_episodes={2 * ROUNDS}", "meta_train.episodes_per_round=2", "meta_train.validation_every=2",
        "meta_train.validation_episodes=2", "meta_train.validation_way=2", "meta_train.validation_shot=1",
        "meta_train.validation_query=1", "meta_train.checkpoint_every=1", "executor.kind=serial", "run.id=cut",
        f"run.root={root}", "wandb.mode=disabled",
    ]  # fmt: skip


@pytest.fixture
def cut(data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run that was interrupted in round ``STOPPED_IN``."""
    learn, calls = EpisodeWorker.learn, [0]

    def interrupted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] > 2 * STOPPED_IN:
            raise KeyboardInterrupt
        return learn(*args)

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeWorker, "learn", interrupted)
        assert main(words(data_root, tmp_path)) == 130
    return tmp_path / "cut"


def test_its_page_and_figures_are_there_and_none_is_missing_in_the_end(cut: Path, data_root: str) -> None:
    assert "unfinished: the same command resumes it" in (cut / "report.html").read_text()
    before = read_figures(cut)
    assert sorted(before) == list(range(STOPPED_IN))
    assert "validation_half_width/stripes" in before[1] and "seconds_on_workers" in before[0]
    assert main(words(data_root, cut.parent)) == 0
    after = read_figures(cut)
    assert sorted(after) == list(range(ROUNDS)) and {key: after[key] for key in before} == before


def test_damaged_curves_do_not_hold_up_good_weights(
    cut: Path, data_root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cut / "curves.parquet").write_bytes(b"PAR1 damaged")
    assert main(words(data_root, cut.parent)) == 0
    assert "the curves start anew" in caplog.text
    assert [row["round"] for row in read_curves(cut / "curves.parquet")] == list(range(STOPPED_IN, ROUNDS))
    assert main(words(data_root, tmp_path / "whole")) == 0
    hashes = {load_checkpoint(folder / "weights.safetensors").hash for folder in (cut, tmp_path / "whole" / "cut")}
    assert len(hashes) == 1
