"""``initialization``: random, pre-trained and meta-trained weights of one simulation, made first or given."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_job import SERIAL, TINY

from tinytrain_dist.backbones.card import CheckpointCard, read_card
from tinytrain_dist.backbones.checkpoint import save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.backbones.shipped_weights import shipped_path
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.verbs.compose import compose_job
from tinytrain_dist.verbs.initialization import given_weights, weights_word
from tinytrain_dist.verbs.simulate import checked_settings

STAGES = (
    "pretrain.objective=supervised", "pretrain.teacher=null", "pretrain.domains=[icons]", "pretrain.views_per_image=1",
    "pretrain.epochs=1", "pretrain.batch_size=512", "pretrain.validation_episodes=2", "pretrain.validation_way=3",
    "pretrain.validation_query=3", "meta_train.initial_weights=pretrain", "meta_train.domains=[icons]",
    "meta_train.num_episodes=2", "meta_train.episodes_per_round=2", "meta_train.way=[3,3]", "meta_train.query=[2,2]",
    "meta_train.validation_episodes=2", "meta_train.validation_way=3", "meta_train.validation_query=3",
)  # fmt: skip


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    card = CheckpointCard(initialization="pretrained", resolution=32)
    save_checkpoint(path, build_backbone("mobilenet_v2_w0.1", seed=1), card)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "shipped"),
        (["backbone.name=proxylessnas"], "shipped"),
        (["backbone.name=mobilenet_v2_w0.1"], "random"),
        (["backbone.weights=random"], "random"),
        (["backbone.weights=meta_train"], "meta_train"),
        (["initialization=pretrained"], "pretrain"),
        (["initialization=meta_trained"], "shipped"),
        (["initialization=meta_trained", "backbone.name=mobilenet_v2_w0.1"], "meta_train"),
        (["initialization=meta_trained", "backbone.weights=meta_train"], "meta_train"),
        (["initialization=random"], "random"),
        (["initialization=random", "backbone.weights=meta_train"], "random"),
        (["initialization=pretrained", "backbone.weights=a.safetensors"], "a.safetensors"),
    ],
)
def test_it_takes_the_place_of_a_stage_and_not_of_a_file(words: list[str], expected: str) -> None:
    assert weights_word(compose_job(words)) == expected


def test_a_file_must_be_what_was_asked_for(pretrained: Path) -> None:
    words = [*TINY, f"backbone.weights={pretrained}"]
    assert given_weights(compose_job([*words, "initialization=pretrained"])) == pretrained
    with pytest.raises(ConfigError, match=r"found meta_trained, but backbone\.weights=.* is pretrained"):
        checked_settings(compose_job([*words, "initialization=meta_trained"]))
    with pytest.raises(ConfigError, match="unknown 'pretrain'; did you mean 'pretrained'"):
        checked_settings(compose_job([*TINY, "initialization=pretrain"]))
    with pytest.raises(ConfigError, match=r"pretrain\.batch_size"):
        checked_settings(compose_job([*TINY, "initialization=pretrained", "pretrain.batch_size=1"]))


def test_meta_trained_weights_of_the_package_need_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, SERIAL, "backbone.name=mcunet", "methods=[none]", "episodes.num_tasks=1", f"run.root={tmp_path}"]
    assert main(["simulate", *words, "initialization=meta_trained", "run.id=mine"]) == ExitCode.DONE
    assert (
        "initialization=meta_trained: the package's weights of mcunet are; backbone.weights=meta_train makes others"
        in (capsys.readouterr().err)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "no stage has run"
    (found,) = open_run(tmp_path / "mine").select("SELECT DISTINCT initialization, checkpoint FROM rows")
    assert found == {
        "initialization": "meta_trained", "checkpoint": read_card(shipped_path("mcunet")).content_hash
    }  # fmt: skip


@pytest.mark.slow
def test_one_command_each_and_the_rows_say_which(tmp_path: Path) -> None:
    common = (*TINY, *STAGES, SERIAL, "methods=[none]", "episodes.num_tasks=2", f"run.root={tmp_path}")
    found = {}
    for name in ("random", "pretrained", "meta_trained"):
        assert main(["simulate", *common, f"initialization={name}", f"run.id={name}"]) == ExitCode.DONE
        (found[name],) = open_run(tmp_path / name).select("SELECT DISTINCT initialization, checkpoint FROM rows")
    assert [row["initialization"] for row in found.values()] == list(found)
    assert len({row["checkpoint"] for row in found.values()}) == 3
    assert len(list(tmp_path.glob("pretrain-*"))) == 1  # made once, then the start of the meta-training
    for name in found:  # the record holds the word, not the stage's file
        assert main(["replay", str(tmp_path / name), "--task", "signs/test/fixed-3w2s3q/s0/0"]) == ExitCode.DONE
