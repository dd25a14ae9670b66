"""``experiment=paper`` from records and caches of the real layout to a table, everything that costs time cut down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from paper_data import write_paper_data

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main
from tinytrain_dist.verbs.compose import compose_job
from tinytrain_dist.verbs.settings_of import meta_train_settings

BACKBONE = "mobilenet_v2_w0.1"


def test_the_schedule_is_the_papers() -> None:
    config = compose_job(["experiment=paper", "backbone.name=proxylessnas_no_mix"])
    settings = meta_train_settings(config)
    assert settings.num_rounds == 100 * 2000 and settings.optimizer == "sgd" and settings.momentum == 0.9
    assert (settings.final_learning_rate, settings.learning_rate, settings.warmup_share) == (1e-6, 5e-5, 5 / 100)
    assert settings.initial_weights == "proxylessnas_no_mix.safetensors" and settings.resolution == 84
    assert settings == meta_train_settings(
        compose_job(["experiment=paper_meta_train", "backbone.name=proxylessnas_no_mix"])
    )
    assert (len(config.data.domains), config.episodes.num_tasks, config.episodes.sampler) == (9, 200, "meta_dataset")


@pytest.mark.slow
def test_from_records_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_paper_data(tmp_path)
    for name in ("omniglot", "dtd"):
        argv = ["data", "import", f"records/{name}", "--format", "meta_dataset", "--out", "domains", "--name", name]
        assert main(argv) == 0
    caches = ["mini-imagenet", "--format", "mini_imagenet", "--out", "domains", "--name", "mini_imagenet"]
    assert main(["data", "import", *caches]) == 0
    card = CheckpointCard(initialization="pretrained", resolution=32)
    save_checkpoint(Path(f"{BACKBONE}.safetensors"), build_backbone(BACKBONE, seed=1), card)
    small = [
        "backbone.resolution=32", "meta_train.num_episodes=2", "meta_train.query=[1,1]", "meta_train.shot=[1,1]",
        "meta_train.validation_every=1", "meta_train.validation_episodes=2", "meta_train.validation_query=1",
        "data.domains=[omniglot,dtd]", "episodes.num_tasks=1", "methods=[none,last_layer]", "finetune.iterations=1",
        "executor.kind=serial", "wandb.mode=disabled", "run.id=paper",
    ]  # fmt: skip
    assert main(["simulate", "experiment=paper", f"backbone.name={BACKBONE}", *small]) == 0
    trained = load_checkpoint(next(Path("runs").glob("meta-*/weights.safetensors")))
    assert trained.card.initial == load_checkpoint(Path(f"{BACKBONE}.safetensors")).hash
    assert json.loads(Path("runs/paper/run.json").read_text())["identity"]["checkpoint"] == trained.hash
    capsys.readouterr()
    assert main(["compare", "runs/paper", "--by", "domain", "--json"]) == 0
    assert {row["domain"] for row in json.loads(capsys.readouterr().out)} >= {"omniglot", "dtd"}
