"""The folder the documentation's commands are run in: a finished run and the files its pages speak of."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import REPOSITORY
from paper_data import write_paper_data
from PIL import Image
from tiny_words import TINY

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main

COPIED = ("cluster", "jobs", "benchmarks", "device_profiles", "constraints.txt", "Dockerfile", "conf", "tests")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout's files by link, ``runs/mine``, ``mcunet.safetensors``, ``my_photos/``, ``records/`` and others."""
    folder = tmp_path_factory.mktemp("docs")
    for name in COPIED:
        if (REPOSITORY / name).exists():
            (folder / name).symlink_to(REPOSITORY / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text("")
    card = CheckpointCard(initialization="random", resolution=84)
    save_checkpoint(folder / "mcunet.safetensors", build_backbone("mcunet", seed=1), card)
    _photos(folder / "my_photos")
    write_paper_data(folder)
    shutil.copyfile(REPOSITORY / "device_profiles/measurements/inference.csv", folder / "networks.csv")
    with contextlib.chdir(folder):
        assert main(["simulate", *TINY, "run.id=mine", "backbone.weights=mcunet.safetensors"]) == 0
    return folder


@pytest.fixture
def folder(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, as the current one, for a user without a cluster and without a W&B key."""
    for name in [name for name in os.environ if name.startswith(("RAY_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(made)
    return made


def _photos(folder: Path) -> None:
    """Make three classes of twenty pictures of noise."""
    draw = np.random.default_rng(0)
    for name in ("cup", "plate", "spoon"):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(0, 256, size=(40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
