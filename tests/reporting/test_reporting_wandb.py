"""The W&B run is written offline for real and read back with the client's own command; servers here are real, too."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import duckdb
import pytest
import wandb
from synthetic_run import failed_row, grid_rows
from wandb_offline import inspect, records

from tinytrain_dist.cli import main
from tinytrain_dist.reporting import wandb_content
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.distributions import histograms
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.wandb_report import bars, write_report
from tinytrain_dist.reporting.wandb_run import log_to_wandb
from tinytrain_dist.reporting.wandb_session import _kept_inside, resolve_mode

MakeRun = Callable[..., Path]
SECRET = "s3cr3t-0123456789-abcdef"
KEY = "e1c5" * 10
REPORT = [sys.executable, "-m", "tinytrain_dist", "report"]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    logging.getLogger("tinytrain_dist").propagate = True


def read_back(folder: Path) -> dict[str, Any]:
    """Summary and configuration of an offline run."""
    return json.loads(inspect(folder, "--summary"))  # type: ignore[no-any-return]


def outputs(folder: Path) -> bytes:
    """Every byte below a folder."""
    return b"\n".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def with_meta_training(path: Path) -> bytes:
    """Put the meta-training beside the run whose weights it names; returns those weights."""
    meta, weights = path.parent / "meta-mcunet-1", b"not really weights, but the same bytes everywhere"
    meta.mkdir()
    (meta / "run.json").write_text(json.dumps({"kind": "meta_train", "weights_hash": "c0ffee"}))
    (meta / "weights.safetensors").write_bytes(weights)
    return weights


@pytest.mark.slow
def test_offline_run_holds_every_figure_and_no_secret(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", SECRET)
    monkeypatch.setattr(sys, "argv", ["tinytrain", "an-argument-nobody-may-record"])
    rows = [*grid_rows(), failed_row(task_id="bad", variant="none-1", message=f"refused {SECRET}")]
    config = {"experiment": "quickstart", "endpoint": f"host?{SECRET}", "wandb": {"api_key": "k"}, "seed": 3}
    path = make_run(rows, config=config, identity={"checkpoint": "c0ffee"})
    weights = with_meta_training(path)
    assert main(["report", str(path), "--wandb", "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    folder = Path(printed["wandb"])
    assert folder.is_relative_to(path / "wandb") and folder.name.startswith("offline-run-")

    found = read_back(folder)
    assert_summary_is_the_parquet(found["summary"], path)
    assert_tables_are_the_comparison(folder, found["summary"], path)
    assert (found["config"]["seed"], found["state"], found["exit_code"]) == (3, "finished", 0)
    assert found["config"]["checkpoint"] == {"hash": "c0ffee", "made_by": "meta-mcunet-1"}
    assert found["summary"]["task_sample_rows"] == found["summary"]["task_sample_of"] == 8 + 4 * 2 * 8 + 1
    assert_artifacts_tell_the_lineage(folder, weights)
    (run,) = records(folder, "run")
    assert (run["run_group"], run["job_type"]) == ("quickstart", "simulate")
    assert run["tags"] == ["mcunet", "raspberry-pi-zero-2", "stm32f746"]
    html = folder / "files" / found["summary"]["report"]["path"]
    assert html.read_bytes() == (path / "report.html").read_bytes()

    written = outputs(path / "wandb") + (path / "report.html").read_bytes()
    assert SECRET.encode() in outputs(path / "results")  # the store wrote it; from here it must not travel
    for word in (SECRET.encode(), b"an-argument-nobody-may-record"):
        assert word not in written
    assert not list((path / "wandb").rglob("requirements.txt")) + list((path / "wandb").rglob("wandb-metadata.json"))
    assert not (Path(os.environ["HOME"]) / ".local").exists()


def assert_summary_is_the_parquet(summary: dict[str, Any], path: Path) -> None:
    """Compare the headline figures with what the Parquet says, and the others with the comparison."""
    parquet = f"'{path}/results/*.parquet'"
    means = duckdb.sql(
        f"SELECT device, method, avg(accuracy_after), median(energy_mj), count(*) FROM {parquet}"
        " WHERE status = 'ok' AND method <> 'raw_pixels' GROUP BY ALL"
    ).fetchall()
    assert len(means) == 8
    for device, method, accuracy, energy, num in means:
        prefix = f"{device}/{method}"
        assert summary[f"{prefix}/accuracy_mean"] == pytest.approx(accuracy)
        assert summary[f"{prefix}/energy_p50_mj"] == pytest.approx(energy)
        assert summary[f"{prefix}/num_tasks"] == num
    by_domain = duckdb.sql(
        f"SELECT domain, method, avg(accuracy_after) FROM {parquet} WHERE status = 'ok' GROUP BY ALL"
    ).fetchall()
    for domain, method, accuracy in by_domain:
        assert summary[f"domain/{domain}/{method}/accuracy_mean"] == pytest.approx(accuracy)
        counts = summary[f"accuracy/{domain}/{method}"]
        assert counts["_type"] == "histogram" and sum(counts["values"]) == 4
    figures = {name: value for name, value in summary.items() if isinstance(value, int | float) and "/" in name}
    expected = wandb_content.summary(open_run(path))
    assert figures == pytest.approx({name: value for name, value in expected.items() if "/" in name})


def assert_tables_are_the_comparison(folder: Path, summary: dict[str, Any], path: Path) -> None:
    """Compare every cell of every table."""
    run = open_run(path)
    expected = wandb_content.tables(run)
    devices = {row.device or "no_device" for row in comparison_table(run)}
    assert set(expected) == {f"devices/{d}" for d in devices} | {
        "domains/signs",
        "domains/glyphs",
        "accuracy_by_domain",
    }
    for name, (columns, data) in expected.items():
        table = json.loads((folder / "files" / summary[name]["path"]).read_text())
        assert table["columns"] == list(columns) and len(table["data"]) == len(data)
        for read, known in zip(table["data"], data, strict=True):
            assert read == [pytest.approx(v) if isinstance(v, float) else v for v in known]
    (sample,) = (json.loads((folder / "files" / summary["task_sample"]["path"]).read_text()),)
    known_rows, total, columns = wandb_content.task_sample(run)
    assert sample["columns"] == columns and len(sample["data"]) == total
    assert [row[:8] for row in sample["data"]] == [row[:8] for row in known_rows]


def assert_artifacts_tell_the_lineage(folder: Path, weights: bytes) -> None:
    """The run used the meta-training's checkpoint and made its results."""
    found = {artifact["name"]: artifact for artifact in records(folder, "artifact")}
    checkpoint = found["checkpoint-c0ffee"]
    assert checkpoint["use_after_commit"] is True and checkpoint["type"] == "model"
    (entry,) = checkpoint["manifest"]["contents"]
    assert (entry["path"], int(entry["size"])) == ("weights.safetensors", len(weights))
    assert not found["results-quickstart-1"].get("use_after_commit")


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with the server's one status."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.headers.get("Authorization", ""))  # type: ignore[attr-defined]
        body = b'{"errors": [{"message": "no"}]}'
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 (the name the server calls)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server(status: int) -> Iterator[ThreadingHTTPServer]:
    found = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    found.status, found.asked = status, []  # type: ignore[attr-defined]
    Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.mark.slow
def test_a_server_that_does_not_take_the_run_leaves_an_offline_copy(make_run: MakeRun) -> None:
    """Unreachable, wrong key, rate limited: at the same time, for each waits for its own retries."""
    with server(401) as wrong_key, server(429) as limited:
        ports = {"unreachable": 9, "wrong key": wrong_key.server_port, "rate limited": limited.server_port}
        paths = {name: make_run(grid_rows(num_tasks=2), name=name.replace(" ", "-")) for name in ports}
        jobs = {name: reporting(paths[name], port) for name, port in ports.items()}
        outs = {name: job.communicate(timeout=200) for name, job in jobs.items()}
        assert wrong_key.asked and limited.asked  # type: ignore[attr-defined]
    for name, (printed, said) in outs.items():
        assert jobs[name].returncode == 0, said
        folder = Path(json.loads(printed)["wandb"])
        assert folder.name.startswith("offline-run-") and "an offline copy is kept" in said, name
        found = read_back(folder)
        assert (found["state"], found["summary"]["rows"]) == ("finished", len(grid_rows(num_tasks=2)))
        assert KEY.encode() not in outputs(paths[name]) and KEY not in said


def reporting(path: Path, port: int) -> subprocess.Popen[str]:
    """Start ``tinytrain report --wandb`` against a server on this machine."""
    environment = {**os.environ, "WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": KEY}
    command = [*REPORT, str(path), "--wandb", "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_resumed_run_continues_the_same_wandb_run(make_run: MakeRun) -> None:
    path = make_run(grid_rows(num_tasks=2))
    first = log_to_wandb(open_run(path), mode="offline")
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(record | {"status": "finished", "updated": "2026-03-02T12:00:00Z"}))
    again = log_to_wandb(open_run(path), mode="offline")
    assert first is not None and again is not None
    assert records(first, "run")[0]["run_id"] == records(again, "run")[0]["run_id"]
    assert records(first, "run")[0]["run_id"].startswith("quickstart-1-")
    other = log_to_wandb(open_run(make_run(name="other", created="2026-04-01T12:00:00Z")), mode="offline")
    assert other is not None and records(other, "run")[0]["run_id"] != records(first, "run")[0]["run_id"]


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


def test_the_report_on_domains_is_kept_as_the_specification_that_would_be_saved(make_run: MakeRun) -> None:
    internal = pytest.importorskip("wandb_workspaces.reports.v2.internal")
    rows = grid_rows(domains=("signs", "gl|yphs*"))
    run = open_run(make_run(rows))
    file = write_report(run, logged_in=False, project="tiny")
    assert isinstance(file, Path)
    document = json.loads(file.read_text())
    assert document["project"] == "tiny" and "wandb login" in document["how_to_push"]
    spec = internal.Spec.model_validate(document["spec"])
    kinds = [block.type for block in spec.blocks]
    assert kinds.count("heading") == kinds.count("markdown-block") == 3 and "panel-grid" in kinds
    text = json.dumps(document["spec"], ensure_ascii=False)
    for row in comparison_table(run, by="domain"):
        assert row.accuracy_mean is not None and f"{100 * row.accuracy_mean:.1f} ±" in text
    assert "gl\\\\|yphs\\\\*" in text  # a name is no table cell of its own
    counts = {h.domain: h.counts for h in histograms(run) if h.key[3] == "none"}
    assert all(f"`{bars(found)}`" in text for found in counts.values())


def test_bars_show_every_bin_that_has_a_task() -> None:
    assert bars((0, 1, 400, 200, 0)) == " ▁█▄ "
    assert bars((0, 0)) == "  "


def test_folders_of_overlapping_runs_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", "mine")
    first, second = _kept_inside(tmp_path / "first"), _kept_inside(tmp_path / "second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # a thread that was given up ends late
    assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / "second" / "wandb" / "data")
    second.__exit__(None, None, None)
    assert "WANDB_DATA_DIR" not in os.environ and os.environ["WANDB_CACHE_DIR"] == "mine"
