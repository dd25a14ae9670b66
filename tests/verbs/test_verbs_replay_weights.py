"""``tinytrain replay`` finds the weights of a run again, whatever word ``backbone.weights`` was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_job import SERIAL, TINY

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode

TASK = "signs/test/fixed-3w2s3q/s0/0"
WORDS = (*TINY, SERIAL, "data.domains=[signs]", "episodes.num_tasks=1", "methods=[none]", "devices.names=[jetson_nano]")
SHIPPED = "backbone.name=mcunet"  # the package has weights for it


def simulated(root: Path, *words: str) -> Path:
    assert main(["simulate", *WORDS, f"run.root={root}", "run.id=mine", *words]) == ExitCode.DONE
    return root / "mine"


@pytest.mark.parametrize(
    "words",
    [
        [SHIPPED],
        [SHIPPED, "backbone.weights=shipped"],
        [SHIPPED, "backbone.weights=random"],
        [SHIPPED, "initialization=random"],
        ["backbone.weights=auto"],
        ["backbone.weights=meta_train", "initialization=random"],
    ],
)
@pytest.mark.slow
def test_a_word_is_no_file_name(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = simulated(tmp_path, *words)
    capsys.readouterr()
    assert main(["replay", str(run), "--task", TASK]) == ExitCode.DONE, capsys.readouterr().err
    assert f"1 of 1 rows of {TASK} are equal" in capsys.readouterr().out


@pytest.mark.parametrize("random", [True, False])
@pytest.mark.slow
def test_weights_of_another_hash_are_refused(random: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = simulated(tmp_path, SHIPPED, *(["backbone.weights=random"] if random else []))
    record = json.loads((run / "run.json").read_text())
    ours = record["identity"]["checkpoint"]
    record["identity"]["checkpoint"] = "0" * 16
    (run / "run.json").write_text(json.dumps(record))
    capsys.readouterr()
    code = main(["replay", str(run), "--task", TASK])
    err = capsys.readouterr().err
    if random:
        assert code == ExitCode.LOCKED and f"checkpoint: {'0' * 16!r} there, {ours!r} asked" in err
    else:
        assert (
            code == ExitCode.BAD_INPUT and "(recorded as 'auto'): not " in err and f"mcunet.safetensors ({ours}" in err
        )


def test_random_weights_of_a_lost_file_are_not_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random weights in a file are the file's: its own seed is not the run's."""
    path = tmp_path / "elsewhere" / "own.safetensors"
    path.parent.mkdir()
    card = CheckpointCard(initialization="random", resolution=32)
    save_checkpoint(path, build_backbone("mobilenet_v2_w0.1", seed=3), card)
    run = simulated(tmp_path / "runs", f"backbone.weights={path}")
    assert main(["replay", str(run), "--task", TASK]) == ExitCode.DONE
    path.unlink()
    capsys.readouterr()
    assert main(["replay", str(run), "--task", TASK]) == ExitCode.BAD_INPUT
    assert "own.safetensors (no such file)" in capsys.readouterr().err
