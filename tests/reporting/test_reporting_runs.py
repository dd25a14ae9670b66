from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinytrain_dist.foundation.errors import ExitCode, StorageError
from tinytrain_dist.foundation.redaction import REDACTED, redact, redact_text, secret_values
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.reading import read_run
from tinytrain_dist.reporting.runs import open_run

MakeRun = Callable[..., Path]


def rewrite(file: Path, metadata: dict[str, str], *, drop: str | None = None) -> None:
    table = pq.read_table(file)
    table = table.drop_columns([drop]) if drop else table
    pq.write_table(table.replace_schema_metadata(metadata), file)


def test_opens_a_run(make_run: MakeRun) -> None:
    run = open_run(make_run(num_files=3))
    assert run.run_id == "quickstart-1"
    assert run.num_rows == 8 * 5 * 2
    assert len(run.result_files()) == 3


def test_missing_folder_and_missing_record_say_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such run directory") as found:
        open_run(tmp_path / "nowhere")
    assert found.value.exit_code == ExitCode.STORAGE
    with pytest.raises(StorageError, match=r"not a run directory \(it has no run.json\)"):
        open_run(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_record_is_refused(make_run: MakeRun, text: str) -> None:
    path = make_run()
    (path / "run.json").write_text(text)
    with pytest.raises(StorageError, match=r"run\.json"):
        open_run(path)


def test_no_results_and_no_rows(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run()
    (path / "results" / "part-0.parquet").unlink()
    with pytest.raises(StorageError, match="no result files"):
        open_run(path)
    with pytest.raises(StorageError, match="without a single row"):
        open_run(make_run([], name="empty"))


def test_newer_schema_foreign_file_and_missing_column(make_run: MakeRun) -> None:
    path = make_run()
    file = path / "results" / "part-0.parquet"
    rewrite(file, {"tinytrain_schema": "99"})
    with pytest.raises(StorageError, match="result schema 99, this version reads up to 2"):
        open_run(path)
    rewrite(file, {})
    with pytest.raises(StorageError, match="schema version is missing"):
        open_run(path)
    rewrite(file, {"tinytrain_schema": "1"}, drop="energy_mj")
    with pytest.raises(StorageError, match="columns are missing: energy_mj"):
        open_run(path)


def test_a_truncated_file_is_named(make_run: MakeRun) -> None:
    path = make_run()
    file = path / "results" / "part-0.parquet"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(StorageError, match=r"part-0\.parquet: damaged"):
        open_run(path)


def test_two_rows_with_one_key_are_refused(make_run: MakeRun) -> None:
    path = make_run()
    results = path / "results"
    first = pq.read_table(results / "part-0.parquet").slice(0, 1)
    pq.write_table(first, results / "part-9.parquet")
    with pytest.raises(StorageError, match="two rows have the same key"):
        open_run(path)


def test_temporary_files_are_not_read(make_run: MakeRun) -> None:
    path = make_run()
    (path / "results" / ".part-1.parquet").write_bytes(b"half")
    assert open_run(path).num_rows == 80


def test_the_record_is_redacted_but_hashes_stay(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2hunter2")
    config = {"wandb": {"api_key": "abc", "mode": "offline"}, "note": "uses hunter2hunter2 here"}
    path = make_run(config=config, command="tinytrain simulate wandb.api_key=abc seed=1", identity={"key_hash": "ff00"})
    record = open_run(path).record
    assert record["config"]["wandb"] == {"api_key": REDACTED, "mode": "offline"}
    assert record["config"]["note"] == f"uses {REDACTED} here"
    assert record["command"] == f"tinytrain simulate wandb.api_key={REDACTED} seed=1"
    assert record["identity"] == {"key_hash": "ff00"}
    assert "hunter2" not in json.dumps(record)


def test_redaction_leaves_ordinary_values_alone() -> None:
    environment = {"A_TOKEN": "adam", "B_PASSWORD": "longenough", "HOME": "/home/longer"}
    assert secret_values(environment) == ("longenough",)
    value = {"optimizer": "adam", "lr": 0.1, "list": ["x", 1, None], "empty_key": "", "none_key": None}
    assert redact(value, secrets=("longenough",)) == value
    assert redact_text("expected key: a word, found 3", secrets=()) == "expected key: a word, found 3"


def test_reads_a_dataset_of_folders(make_run: MakeRun) -> None:
    path = make_run()
    (path / "results" / "batch=1").mkdir()
    (path / "results" / "part-0.parquet").rename(path / "results" / "batch=1" / "part-0.parquet")
    run = open_run(path)
    assert run.num_rows == 80
    assert pa.types.is_integer(pq.read_schema(run.result_files()[0]).field("batch").type)
    assert run.select("SELECT DISTINCT batch FROM stored WHERE method = 'none'") == [{"batch": 1}]


def test_rows_of_the_first_schema_are_read_and_said_to_be(make_run: MakeRun) -> None:
    path = make_run(num_files=2)
    old, new = (path / "results" / f"part-{part}.parquet" for part in range(2))
    rewrite(old, {"tinytrain_schema": "1"}, drop="extrapolated")
    assert open_run(path).absent_columns == ()  # one file has it: its rows keep what they say
    rewrite(new, {"tinytrain_schema": "1"}, drop="extrapolated")
    reading = read_run(path)
    assert reading.run.absent_columns == ("extrapolated",)
    assert reading.run.select("SELECT count(*) AS num, count(extrapolated) AS known FROM rows")[0]["known"] == 0
    assert any("older than the column extrapolated" in note for note in reading.notes)
    assert {row.extrapolated_share for row in comparison_table(reading.run)} == {None}
    rewrite(new, {"tinytrain_schema": "2"})
    with pytest.raises(StorageError, match="columns are missing: extrapolated"):
        open_run(path)
