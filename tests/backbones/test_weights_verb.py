"""``tinytrain weights``: list, check, import."""

import json
from pathlib import Path

import pytest
import torch

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.flat_state import state_to_flat
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main

CARD = CheckpointCard(initialization="random", resolution=84, licence="CC0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "good.safetensors", build_backbone("mcunet"), CARD)
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense" * 10)
    return tmp_path


def test_list_shows_cards_and_names_what_is_no_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", str(folder), "--json"]) == 0
    bad, good = (row for row in json.loads(capsys.readouterr().out) if not row["shipped"])
    assert "bad.safetensors" in bad["error"]
    assert good["backbone"] == "mcunet"
    assert good["checkpoint"] == load_checkpoint(folder / "good.safetensors").hash
    assert main(["weights", "list", str(folder)]) == 0
    assert "mcunet  random" in capsys.readouterr().out


def test_list_without_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["weights", "list", "--json"]) == 0
    assert all(row["shipped"] for row in json.loads(capsys.readouterr().out))
    assert main(["weights", "list"]) == 0
    assert "no checkpoints in runs" in capsys.readouterr().out
    assert main(["weights", "list", "nowhere"]) == 2


def test_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "check", str(folder / "good.safetensors"), "--backbone", "mcunet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["num_values"] == 487_248
    assert main(["weights", "check", str(folder / "bad.safetensors")]) == 3
    assert main(["weights", "check", str(folder / "good.safetensors"), "--backbone", "proxylessnas"]) == 3
    assert "expected 'proxylessnas'" in capsys.readouterr().err


def test_import_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone, source, out = build_backbone("mcunet", seed=3), tmp_path / "w.pth", tmp_path / "w.safetensors"
    torch.save({"state_dict": backbone.state_dict()}, source)
    argv = ["weights", "import", str(source), "--backbone", "mcunet", "--out", str(out)]
    assert main([*argv, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["initialization"] == "pretrained"
    assert "weights import" in card["command"]
    assert (load_checkpoint(out).state == state_to_flat(backbone)).all()
    assert main(argv) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["chekc"], 2, "did you mean 'check'"),
        (["import", "w.bin", "--backbone", "mcunet", "--out", "x.safetensors"], 2, "unknown ending '.bin'"),
        (["import", "w.pkl", "--backbone", "mcunet", "--out", "x.bin"], 2, "must end in .safetensors"),
        (["import", "w.pkl", "--backbone", "mcunet"], 2, "--out"),
        (["import", "w.pkl", "--backbone", "mcunett", "--out", "x.safetensors"], 2, "did you mean 'mcunet'"),
        (["import", "w.pkl", "--backbone", "mcunet", "--out", "x.safetensors"], 3, "w.pkl"),
        (["import", "w", "--backbone", "mcunet", "--out", "x.safetensors", "--format", "h5"], 2, "tiny_training"),
    ],
)
def test_mistakes(
    argv: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["weights", *argv]) == code
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "--help"]) == 0
    assert "example:" in capsys.readouterr().out
