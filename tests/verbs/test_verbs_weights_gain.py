"""``weights gain``: the paired gain of a real run on the card of the weights it started from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_job import SERIAL, TINY

from tinytrain_dist.backbones.card import Accuracy, CheckpointCard, Evaluation
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main
from tinytrain_dist.reporting.runs import open_run

pytestmark = pytest.mark.slow


def checkpoint(path: Path, seed: int, *, evaluated: bool = True) -> Path:
    arm = {"weights": Accuracy(mean=0.5, half_width=0.1, num_episodes=2)}
    evaluation = Evaluation(protocol="p", domains={"signs": "h"}, accuracy={"signs": arm}, verdicts=("first",))
    card = CheckpointCard(initialization="pretrained", resolution=32, evaluation=evaluation if evaluated else None)
    save_checkpoint(path, build_backbone("mobilenet_v2_w0.1", seed=seed), card)
    return path


def test_the_gain_of_a_run_stands_on_the_card_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = checkpoint(tmp_path / "w.safetensors", 1)
    words = [*TINY, SERIAL, "methods=[none,tinytrain]", "finetune.iterations=4", f"backbone.weights={file}"]
    assert main(["simulate", *words, f"run.root={tmp_path}", "run.id=gain"]) == 0
    before = load_checkpoint(file).hash
    for _ in range(2):
        assert main(["weights", "gain", str(file), str(tmp_path / "gain")]) == 0
    found = load_checkpoint(file)
    assert found.hash == before and found.card.evaluation is not None
    first, verdict = found.card.evaluation.verdicts
    assert first == "first"
    assert verdict.startswith("tinytrain over no update, 3-way 2-shot, 4 iterations at rate 0.001: ")
    rows = open_run(tmp_path / "gain").select(
        "SELECT domain, task_id, method, avg(accuracy_after) AS share FROM rows GROUP BY ALL"
    )
    share = {(row["domain"], row["task_id"], row["method"]): row["share"] for row in rows}
    gains = {
        name: np.mean(
            [100 * (share[d, t, m] - share[d, t, "none"]) for d, t, m in share if (d, m) == (name, "tinytrain")]
        )
        for name in ("signs", "flags")
    }
    for name, gain in gains.items():
        assert f"{name} {gain:+.1f} ±" in verdict
    assert f": {np.mean(list(gains.values())):+.1f} ±" in verdict and "3 tasks each" in verdict
    assert "target +8: " + ("reached" if np.mean(list(gains.values())) >= 8 else "MISSED") in verdict

    other = checkpoint(tmp_path / "other.safetensors", 2)
    assert main(["weights", "gain", str(other), str(tmp_path / "gain")]) == 2
    assert "holds fewer than two tasks of a domain" in capsys.readouterr().err
    bare = checkpoint(tmp_path / "bare.safetensors", 1, evaluated=False)
    assert main(["weights", "gain", str(bare), str(tmp_path / "gain")]) == 2
    assert "holds no evaluation yet" in capsys.readouterr().err
