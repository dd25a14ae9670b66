"""``tinytrain weights evaluate``: figures equal to the method ``none`` on the same tasks, written into the card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.adaptation.nearest_prototype import (
    draw_episodes,
    frozen_accuracy,
    mean_accuracy,
    network_features,
    raw_pixels,
)
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.card import CheckpointCard, read_card
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec, load_episode
from tinytrain_dist.graphs.update_plan import UpdatePlan

BACKBONE, PIXELS, SETTINGS = "mobilenet_v2_w0.1", 32, EpisodeSettings(way=5, shot=2, query=3, clamp_way=True)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    card = CheckpointCard(initialization="random", resolution=PIXELS, command="made by a test")
    save_checkpoint(path, build_backbone(BACKBONE, seed=4), card, head_scale=7.0)
    return path


def test_features_of_a_table_give_the_accuracies_of_single_tasks() -> None:
    domain, network = open_domain("flags"), FoldedNetwork(build_backbone(BACKBONE, resolution=PIXELS, seed=4))
    drawn = draw_episodes(domain, split="test", settings=SETTINGS, num_episodes=4, seed=0)
    found = {"none": network_features(network, resolution=PIXELS), "raw_pixels": raw_pixels(PIXELS)}
    for name, features in found.items():
        single = []
        for index in range(4):
            spec = EpisodeSpec.of(domain, split="test", settings=SETTINGS, seed=0, index=index)
            episode = load_episode(domain, spec, resolution=PIXELS)
            task = TargetTask(spec.task_id, episode=episode, network=network, settings=FineTuneSettings(), scale=10.0)
            single.append(METHODS[name].adapt(task, UpdatePlan(backbone=BACKBONE)).accuracy_after)
        assert frozen_accuracy(domain, drawn, features).mean == pytest.approx(np.mean(single), abs=1e-12)


def test_the_interval_is_the_t_interval() -> None:
    found = mean_accuracy([0.2, 0.4, 0.6])
    assert found.mean == pytest.approx(0.4) and found.half_width == pytest.approx(4.302653 * 0.2 / 3**0.5)


def test_the_figures_go_into_the_card_and_the_weights_stay(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, teacher, out = load_checkpoint(checkpoint), tmp_path / "teacher.safetensors", tmp_path / "out.safetensors"
    save_checkpoint(teacher, build_backbone(BACKBONE, seed=9), CheckpointCard(initialization="random", resolution=32))
    argv = ["weights", "evaluate", str(checkpoint), "--episodes", "3", "--shot", "2", "--query", "2"]
    argv += ["--domain", "flags", "--domain", "fashion", "--teacher", str(teacher), "--teacher-resolution", "40"]
    assert main([*argv, "--out", str(out), "--licence", "Apache-2.0", "--note", "small"]) == 0
    printed = capsys.readouterr().out
    assert "fashion" in printed and "raw_pixels" in printed and "target +8" in printed
    after = load_checkpoint(out)
    assert after.hash == before.hash and after.head_scale == before.head_scale and read_card(checkpoint) == before.card
    assert (after.card.licence, after.card.notes, after.card.command) == ("Apache-2.0", "small", "made by a test")
    assert after.card.evaluation is not None
    assert list(after.card.evaluation.accuracy) == ["flags", "fashion"] and len(after.card.evaluation.verdicts) >= 1
    assert set(after.card.evaluation.accuracy["flags"]) == {"weights", "random", "raw_pixels", "teacher"}
    assert main(["weights", "card", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["evaluation"]["accuracy"]["flags"]["weights"]
    assert shown["mean"] == after.card.evaluation.accuracy["flags"]["weights"].mean and shown["num_episodes"] == 3


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--episodes", "1"], 2, "--episodes"),
        (["--out", "x.bin"], 2, ".safetensors"),
        (["--domain", "flag"], 3, "flags"),
        (["--teacher", "efficientnet_lite0_whel"], 2, "efficientnet_lite0_wheel"),
    ],
)
def test_mistakes(checkpoint: Path, more: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = checkpoint.read_bytes()
    assert main(["weights", "evaluate", str(checkpoint), *more]) == code
    assert words in capsys.readouterr().err and checkpoint.read_bytes() == before


def test_the_way_shrinks_to_the_domain() -> None:
    drawn = draw_episodes(
        open_domain("fashion"), split="test", settings=replace(SETTINGS, way=20), num_episodes=2, seed=0
    )
    assert [len(episode.class_ids) for episode in drawn] == [10, 10]
