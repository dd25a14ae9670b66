"""Runs that are not as they should be, and a run in a notebook."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from planner_rows import Capture, MakeRun, document, rows_with_ram
from synthetic_run import failed_row, result_row, write_run

import tinytrain_dist
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, StorageError


@pytest.mark.parametrize("verb", ["compare", "plan"])
@pytest.mark.slow
def test_runs_that_are_not_as_they_should_be(make_run: MakeRun, tmp_path: Path, capsys: Capture, verb: str) -> None:
    one = make_run(rows_with_ram(devices=("stm32f746",)), name="one")
    assert main([verb, str(one)]) == ExitCode.DONE
    assert "the run has one device" in capsys.readouterr().out
    failed = make_run([failed_row(task_id=f"t{i}") for i in range(3)], name="failed")
    assert main([verb, str(failed)]) == ExitCode.TOO_MANY_FAILURES
    assert "all 3 rows failed" in capsys.readouterr().out
    document(capsys, verb, str(failed), code=ExitCode.TOO_MANY_FAILURES)
    extended = make_run(rows_with_ram(), name="extended", status="running")
    assert main([verb, str(extended)]) == ExitCode.PARTIAL
    assert "being extended" in capsys.readouterr().out
    stopped = make_run(rows_with_ram(), name="stopped", status="stopped")
    assert main([verb, str(stopped)]) == ExitCode.PARTIAL
    assert "stopped before its last task" in capsys.readouterr().out
    empty = write_run(tmp_path / "empty", [])
    assert main([verb, str(empty)]) == ExitCode.STORAGE
    assert "without a single row" in capsys.readouterr().err
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (nothing / "run.json").write_text("{}")
    assert main([verb, str(nothing)]) == ExitCode.STORAGE
    assert "produced no rows yet" in capsys.readouterr().err
    assert main([verb, str(tmp_path / "gone")]) == ExitCode.STORAGE


@pytest.mark.parametrize("verb", ["compare", "plan"])
def test_a_newer_schema_is_refused_by_name(make_run: MakeRun, capsys: Capture, verb: str) -> None:
    path = make_run()
    file = next((path / "results").glob("*.parquet"))
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({"tinytrain_schema": "99"}), file)
    assert main([verb, str(path)]) == ExitCode.STORAGE
    assert "result schema 99" in capsys.readouterr().err


def test_storage_that_vanishes_while_it_is_read(make_run: MakeRun) -> None:
    path = make_run(rows_with_ram())
    run = tinytrain_dist.open_run(path)
    shutil.rmtree(path)
    with pytest.raises(StorageError, match="cannot be read any more"):
        run.compare()


def test_five_lines_from_a_run_to_a_table_and_a_figure(make_run: MakeRun) -> None:
    run = tinytrain_dist.open_run(make_run(rows_with_ram()))
    table = run.compare(by="device")
    assert table.num_rows == 9 and run.rows(["task_id", "method"]).column_names == ["task_id", "method"]
    figure = run.figure("accuracy")
    drawn = {(t.name, x): y for t in figure.data for x, y in zip(t.x, t.y, strict=True)}
    for row in table.to_pylist():
        assert drawn[row["method"], row["device"] or "no device needed"] == pytest.approx(100 * row["accuracy_mean"])
    notes = [a.text for a in figure.layout.annotations]
    assert any("accuracy is computed in fp32" in text for text in notes)
    assert {t.name for t in run.figure("pareto").data} == {"dominated", "front", "knee"}
    assert len(run.figure("gain", device="stm32f746").data) == 4
    assert run.query("SELECT count(*) AS n FROM rows").to_pylist() == [{"n": 72}]
    with pytest.raises(ConfigError, match=r"query: .*nowhere"):
        run.query("SELECT * FROM nowhere")
    with pytest.raises(ConfigError, match=r"query: .*syntax error"):
        run.query("SELEKT 1")
    assert "fits" in run.plan()


def test_the_api_names_mistakes_and_escapes_names(make_run: MakeRun) -> None:
    run = tinytrain_dist.open_run(make_run([result_row(device="<b>x</b>"), result_row(device="plain")]))
    assert any("&lt;b&gt;" in x for t in run.figure().data for x in t.x)
    with pytest.raises(ConfigError, match="unknown 'acuracy'; did you mean 'accuracy'"):
        run.figure("acuracy")
    with pytest.raises(ConfigError, match="did you mean 'plain'"):
        run.figure(device="plane")
    with pytest.raises(ConfigError, match="did you mean 'task_id'"):
        run.rows(["task_ids"])
    with pytest.raises(AttributeError):
        tinytrain_dist.open_runs  # noqa: B018
