"""A meta-training whose W&B run is online: the real client, and a server on this machine that keeps what it is sent."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb_offline import steps
from wandb_server import WandbServer, wandb_server

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.metatraining.episode_worker import EpisodeWorker
from tinytrain_dist.reporting import wandb_live
from tinytrain_dist.reporting.training_run import open_training
from tinytrain_dist.reporting.wandb_training import history, log_training_to_wandb

pytestmark = pytest.mark.slow
ROUNDS = 8


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    wandb.teardown()  # a client that serves others does not know this server
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", "e1c5" * 10)
    monkeypatch.setattr(wandb_live, "EVERY_S", 0.05)
    start_logging()
    logging.getLogger("tinytrain_dist").propagate = True


def words(data_root: str, root: Path) -> list[str]:
    return [
        "meta-train", "backbone.name=mobilenet_v2_w0.1", "backbone.resolution=16", f"data.roots=[{data_root}]",
        "meta_train.domains=[stripes]", "meta_train.way=[3,3]", "meta_train.shot=[1,1]", "meta_train.query=[1,1]",
        f"meta_train.num_episodes={ROUNDS}", "meta_train.episodes_per_round=1", "meta_train.validation_episodes=2",
        "meta_train.validation_way=2", "meta_train.validation_shot=1", "meta_train.validation_query=1",
        "meta_train.checkpoint_every=3", "executor.kind=serial", "run.id=w", f"run.root={root}", "wandb.mode=online",
    ]  # fmt: skip


def failing_in(monkeypatch: pytest.MonkeyPatch, episode: int, fault: Any) -> None:
    """Call ``fault`` before this episode is learned."""
    learn, calls = EpisodeWorker.learn, [0]

    def watched(*args: Any) -> Any:
        if calls[0] == episode:
            fault()
        calls[0] += 1
        return learn(*args)

    monkeypatch.setattr(EpisodeWorker, "learn", watched)


def test_the_same_command_continues_the_same_run_and_steps_only_go_forward(
    data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def crash() -> None:
        raise SystemError("the machine is gone")

    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with monkeypatch.context() as patch:
            failing_in(patch, 5, crash)
            with pytest.raises(SystemError):
                main(words(data_root, tmp_path))
        assert server.steps == [0, 1, 2, 3, 4]  # the newest checkpoint is that of round 3
        assert "episodes" in json.loads(server.lines[0])
        assert main(words(data_root, tmp_path)) == 0
        assert server.steps == [*range(ROUNDS + 1)] and len(set(server.ids)) == 1
        assert [line for line in server.lines if '"episodes":' in line] == server.lines[:1]
        assert "report" in json.loads(server.lines[-1])
        compare(server, tmp_path / "w")
        assert len(server.artifacts) == 1
        log_training_to_wandb(open_training(tmp_path / "w"), mode="online")  # again, afterwards: only the page is new
        assert server.steps == [*range(ROUNDS + 2)] and "loss" not in json.loads(server.lines[-1])
    assert "less than the current step" not in capfd.readouterr().err
    assert not list((tmp_path / "w" / "wandb").glob("offline-run-*"))


def compare(server: WandbServer, run: Path) -> None:
    """Compare what the server was sent with what the run says of itself."""
    names = ("loss", "accuracy", "accuracy/stripes", "learning_rate", "head_scale")
    for step, figures in history(open_training(run)):
        line = json.loads(server.lines[step])
        assert [line[name] for name in names] == pytest.approx([figures[name] for name in names])


def test_a_client_whose_process_dies_leaves_a_whole_offline_copy(
    data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def kill_client() -> None:
        wandb.sdk.wandb_setup.singleton()._connection._proc._process.kill()

    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        failing_in(monkeypatch, 6, kill_client)
        assert main(words(data_root, tmp_path)) == 0
    assert caplog.text.count("W&B: online failed") == 1 and "not written" not in caplog.text
    (folder,) = (tmp_path / "w" / "wandb").glob("offline-run-*")
    found = steps(folder)
    assert list(found) == [*range(ROUNDS + 1)] and "episodes.count" in found[0] and "report.path" in found[ROUNDS]


def test_a_server_that_refuses_in_the_middle_leaves_a_whole_offline_copy(
    data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        failing_in(monkeypatch, 3, server.refuse)
        assert main(words(data_root, tmp_path)) == 0
    assert caplog.text.count("W&B: online failed") == 1 and "not written" not in caplog.text
    (folder,) = (tmp_path / "w" / "wandb").glob("offline-run-*")
    assert list(steps(folder)) == [*range(ROUNDS + 1)]
