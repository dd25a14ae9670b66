"""What comes with the package: every file there is small, whole, says where it is from, and is in the wheel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.backbones.shipped_weights import FOLDER, MAX_BYTES, shipped_files, shipped_path
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.architectures import backbone_names, layer_graph

REPOSITORY = Path(__file__).parents[2]


def test_every_shipped_file_is_small_whole_and_has_a_full_card() -> None:
    assert {path.name for path in FOLDER.iterdir()} >= {"README.md"}, "the folder says how its files are made"
    assert set(shipped_files()) == {"mcunet", "mobilenet_v2", "proxylessnas"}, "the networks of the paper"
    for backbone, path in shipped_files().items():
        assert backbone in backbone_names() and path.stat().st_size <= MAX_BYTES
        card = load_checkpoint(path, backbone=backbone).card
        missing = [key for key in ("command", "data", "licence", "machine", "source") if not getattr(card, key)]
        assert not missing and card.hours and card.evaluation is not None, f"{path.name}: {missing}"
        assert all({"weights", "random", "raw_pixels"} <= set(arms) for arms in card.evaluation.accuracy.values())
        assert len(card.evaluation.accuracy) == 5 and len(card.evaluation.verdicts) >= 2
        said = " ".join((card.notes, *card.evaluation.verdicts))
        assert "20-way 5-shot" in said, f"{path.name}: what adapting them gains ('tinytrain weights gain'), or a note"


def test_the_papers_networks_fit_in_float32() -> None:
    """So nothing is stored in float16, which would not be the weights that were trained."""
    for name in ("mcunet", "mobilenet_v2", "proxylessnas"):
        graph = layer_graph(name)
        assert 4 * (graph.parameters + graph.norm_parameters) + 200_000 < MAX_BYTES


def test_a_backbone_without_shipped_weights_is_told_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shipped: none in this installation"):
        shipped_path("mcunet", folder=tmp_path)
    card = CheckpointCard(initialization="random", resolution=84)
    save_checkpoint(tmp_path / "mobilenet_v2_w0.1.safetensors", build_backbone("mobilenet_v2_w0.1"), card)
    assert load_checkpoint(shipped_path("mobilenet_v2_w0.1", folder=tmp_path)).backbone == "mobilenet_v2_w0.1"
    with pytest.raises(ConfigError, match=r"'mcunet'; shipped: mobilenet_v2_w0\.1"):
        shipped_path("mcunet", folder=tmp_path)


def test_shipped_is_a_word_of_the_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["simulate", "backbone.name=mobilenet_v2_no_mix", "backbone.weights=shipped", f"run.root={tmp_path}"]
    monkeypatch.chdir(tmp_path)
    assert "mobilenet_v2_no_mix" not in shipped_files()
    assert main(words) == 2
    assert "no weights are shipped for backbone 'mobilenet_v2_no_mix'" in capsys.readouterr().err


def test_the_wheel_holds_the_folder() -> None:
    included = {file.distribution_path for file in WheelBuilder(str(REPOSITORY)).recurse_included_files()}
    for path in FOLDER.iterdir():
        assert f"tinytrain_dist/backbones/shipped/{path.name}" in included


def test_list_and_card_show_what_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["path"]).stem for row in rows if row["shipped"]] == list(shipped_files())
    for backbone in shipped_files():
        assert main(["weights", "card", backbone]) == 0
        assert "raw_pixels" in capsys.readouterr().out
    assert main(["weights", "card", "nothing.safetensors"]) == 2
    assert "no such file; shipped:" in capsys.readouterr().err
