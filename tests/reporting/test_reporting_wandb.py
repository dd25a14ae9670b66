"""The W&B run is written offline for real and read back with the client's own command."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from synthetic_run import failed_row, grid_rows

from tinytrain_dist.cli import main
from tinytrain_dist.reporting import wandb_content
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.wandb_run import log_to_wandb, resolve_mode

MakeRun = Callable[..., Path]
SECRET = "s3cr3t-0123456789-abcdef"
KEY = "e1c5" * 10


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    logging.getLogger("tinytrain_dist").propagate = True


def read_back(folder: Path) -> dict[str, Any]:
    """Summary and configuration of an offline run, as the client's own reader gives them."""
    (log,) = folder.glob("run-*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--summary", "--json", str(log)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(out.stdout)  # type: ignore[no-any-return]


def outputs(folder: Path) -> bytes:
    """Every byte below a folder."""
    return b"\n".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


@pytest.mark.slow
def test_offline_run_holds_the_tables_figures_and_no_secret(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", SECRET)
    monkeypatch.setattr(sys, "argv", ["tinytrain", "an-argument-nobody-may-record"])
    rows = [*grid_rows(), failed_row(task_id="bad", message=f"refused {SECRET}")]
    config = {"experiment": "quickstart", "endpoint": f"host?{SECRET}", "wandb": {"api_key": "k"}, "seed": 3}
    path = make_run(rows, config=config)
    assert main(["report", str(path), "--wandb", "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    folder = Path(printed["wandb"])
    assert folder.is_relative_to(path / "wandb") and folder.name.startswith("offline-run-")

    found = read_back(folder)
    row = next(r for r in comparison_table(open_run(path)) if r.method == "tinytrain" and r.device == "stm32f746")
    summary = found["summary"]
    assert summary["stm32f746/tinytrain/gain_points"] == pytest.approx(row.gain_points)
    assert summary["stm32f746/tinytrain/energy_p50_mj"] == pytest.approx(row.energy_p50_mj)
    assert summary["accuracy/signs/tinytrain"]["_type"] == "histogram"
    assert sum(summary["accuracy/signs/tinytrain"]["values"]) == 4
    assert summary["devices/stm32f746"]["_type"] == "table-file" and summary["report"]["_type"] == "html-file"
    assert summary["task_sample_rows"] == summary["task_sample_of"] == 8 + 4 * 2 * 8 + 1
    assert (found["config"]["seed"], found["state"], found["exit_code"]) == (3, "finished", 0)

    written = outputs(path / "wandb") + (path / "report.html").read_bytes()
    results = outputs(path / "results")
    assert SECRET.encode() in results  # the store wrote this message; here it must not travel any further
    for word in (SECRET.encode(), b"an-argument-nobody-may-record"):
        assert word not in written
    assert not list((path / "wandb").rglob("requirements.txt")) + list((path / "wandb").rglob("wandb-metadata.json"))
    assert not (Path(os.environ["HOME"]) / ".local").exists()
    assert b"results-quickstart-1" in written


@pytest.mark.slow
def test_unreachable_server_leaves_an_offline_copy(make_run: MakeRun) -> None:
    path = make_run()
    environment = {**os.environ, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY}
    command = [sys.executable, "-m", "tinytrain_dist", "report", str(path), "--wandb", "--json"]
    out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    folder = Path(json.loads(out.stdout)["wandb"])
    assert folder.name.startswith("offline-run-") and "an offline copy is kept" in out.stderr
    assert read_back(folder)["state"] == "finished"
    assert KEY.encode() not in outputs(path) and KEY not in out.stderr


def test_any_failure_is_logged_and_never_raised(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("X_SECRET", SECRET)

    def refuse(**_: object) -> None:
        raise RuntimeError(f"rate limited for {SECRET}")

    monkeypatch.setattr(wandb, "init", refuse)
    with caplog.at_level(logging.WARNING, logger="tinytrain_dist"):
        assert log_to_wandb(open_run(make_run()), mode="online") is None
    assert "an offline copy is kept" in caplog.text and "W&B: not written: RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_auto_is_online_only_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(os.environ["HOME"])
    home.mkdir()
    assert resolve_mode("auto") == "offline"
    assert resolve_mode("online") == "online"
    (home / ".netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    (home / ".netrc").chmod(0o600)
    assert resolve_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.example")
    assert resolve_mode("auto") == "offline"
    (home / ".netrc").write_text("nonsense")
    assert resolve_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert resolve_mode("auto") == "online"
    for asked in ("disabled", "offline"):
        monkeypatch.setenv("WANDB_MODE", asked)
        assert resolve_mode("auto") == asked


def test_disabled_writes_nothing(make_run: MakeRun) -> None:
    path = make_run()
    assert log_to_wandb(open_run(path), mode="disabled") is None
    assert not (path / "wandb").exists()


def test_content_is_bounded(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_content, "MAX_SAMPLE_ROWS", 10)
    run = open_run(make_run())
    sample, total, columns = wandb_content.task_sample(run)
    assert (len(sample), total) == (10, 72) and len(sample[0]) == len(columns)
    assert sample == wandb_content.task_sample(run)[0]
    assert wandb_content.tags(run) == ["mcunet", "raspberry-pi-zero-2", "stm32f746"]
    assert wandb_content.group(run) == "quickstart"
    assert all(isinstance(value, int | float) for value in wandb_content.summary(run).values())
