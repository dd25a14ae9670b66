"""What a meta-training leaves in W&B: written offline by the job itself, read back with the client's own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tinytrain_dist.backbones.card import read_card
from tinytrain_dist.cli import main

pytestmark = pytest.mark.slow


def records(folder: Path) -> list[dict[str, Any]]:
    (log,) = folder.glob("run-*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(log)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [json.loads(line) for line in said.splitlines()]


def test_times_intervals_pictures_and_a_checkpoint_with_its_card(
    data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    words = [
        "backbone.name=mobilenet_v2_w0.1", "backbone.resolution=16", f"data.roots=[{data_root}]",
        "meta_train.domains=[stripes]", "meta_train.way=[3,3]", "meta_train.shot=[1,1]", "meta_train.query=[1,1]",
        "meta_train.num_episodes=4", "meta_train.episodes_per_round=2", "meta_train.validation_every=1",
        "meta_train.validation_episodes=2", "meta_train.validation_way=2", "meta_train.validation_shot=1",
        "meta_train.validation_query=1", "executor.kind=serial", "run.id=w", f"run.root={tmp_path}",
        "wandb.mode=offline",
    ]  # fmt: skip
    assert main(["meta-train", *words]) == 0
    run = tmp_path / "w"
    (folder,) = (run / "wandb").glob("offline-run-*")
    found = records(folder)
    text = json.dumps([record for record in found if record["type"] == "history"])
    for name in ("seconds_on_workers", "seconds_of_step", "seconds_of_validation", "episodes_per_second", "loss"):
        assert name in text
    assert "validation_half_width/stripes" in text and "validation_accuracy/stripes" in text
    shown = {file.read_bytes() for file in (folder / "files" / "media").rglob("*.png")}
    assert shown == {file.read_bytes() for file in (run / "episodes").glob("*.png")} and len(shown) == 2
    (artifact,) = [record["artifact"] for record in found if record["type"] == "artifact"]
    assert json.loads(artifact["metadata"])["card"] == read_card(run / "weights.safetensors").model_dump(mode="json")
