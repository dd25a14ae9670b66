"""What a second command need not do again: adopted shards, known outcomes, rows of other devices, what succeeded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tiny_simulation import Raises, add_method, chunks_of, rows_of, run, tiny_settings

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.paths import resource_folder
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.simulation import unit
from tinytrain_dist.simulation.plan_run import plan_run
from tinytrain_dist.simulation.request import Chunk, ShardRecord
from tinytrain_dist.simulation.reuse import read_stored
from tinytrain_dist.simulation.row_hash import added, hash_of_sum, result_hash, rows_digest
from tinytrain_dist.simulation.settings import DispatchSettings
from tinytrain_dist.simulation.shard_files import read_rows
from tinytrain_dist.simulation.status import RunStatus
from tinytrain_dist.simulation.store import RunStore, Sources

ONE = {"domains": ("signs",), "num_tasks": 2, "dispatch": chunks_of(0.001)}


def nothing_is_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("this was known")

    monkeypatch.setattr(unit, "fisher_information", refuse)
    monkeypatch.setattr("tinytrain_dist.adaptation.methods.method.fine_tune", refuse)


def test_a_new_device_with_a_known_plan_needs_no_training_and_has_the_same_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(**ONE, methods=("none", "last_layer", "tinytrain"), devices=("raspberry_pi_4b",))
    first = run(settings, tmp_path)
    larger = replace(settings, devices=("raspberry_pi_4b", "raspberry_pi_5"))
    fresh = run(larger, tmp_path / "fresh")
    plans = {(r["task_id"], r["method"], r["plan_hash"]) for r in rows_of(first.folder)}
    assert plans == {(r["task_id"], r["method"], r["plan_hash"]) for r in rows_of(fresh.folder)}, "choose other devices"
    nothing_is_tuned(monkeypatch)
    extended = run(larger, tmp_path)
    assert (extended.computed, extended.exit_code) == (2, ExitCode.DONE)
    assert extended.result_hash == fresh.result_hash


def test_what_is_reused_must_have_the_checksum_of_its_name(tmp_path: Path) -> None:
    settings = tiny_settings(**ONE, methods=("none", "tinytrain"), devices=("raspberry_pi_4b",))
    plan, first = plan_run(settings), run(settings, tmp_path)
    storage, chunk = open_storage(first.folder), Chunk(domain="signs", ranges=((0, 2),), cells=())
    store = RunStore(storage, identity=plan.setup.run_identity)
    store.open()
    chunk = replace(chunk, stored=store.sources(chunk))
    found = read_stored(storage, chunk, setup=plan.setup)
    assert len(found) == 2 and all(task.fisher is not None and task.outcomes for task in found.values())
    rows_file, fisher_file = chunk.stored[0]
    other_rows, other_fisher = chunk.stored[1]
    for name, source in ((rows_file, other_rows), (fisher_file, other_fisher)):  # readable Parquet, and wrong
        storage.write(name, storage.read(source))
    assert len(read_stored(storage, chunk, setup=plan.setup)) == 1
    wrong = replace(chunk, stored=((rows_file, fisher_file),))
    assert not read_stored(storage, wrong, setup=plan.setup)


def test_orphans_of_a_device_this_command_does_not_name_are_adopted(tmp_path: Path) -> None:
    settings = tiny_settings(**ONE, methods=("none",), devices=("raspberry_pi_4b",))
    first = run(settings, tmp_path)
    for path in [first.folder / "manifest.json", first.folder / "_SUCCESS", *(first.folder / "journal").iterdir()]:
        path.unlink()
    assert run(replace(settings, devices=("jetson_nano",)), tmp_path).rows == 4
    again = run(settings, tmp_path)
    assert (again.computed, again.rows) == (0, 4)


def test_only_shards_of_the_chunks_own_tasks_are_sources() -> None:
    def shard(start: int, stop: int) -> ShardRecord:
        return ShardRecord(
            name="", domain="signs", ranges=((start, stop),), cells=(), rows=1, failed_tasks=0, profiles={},
            files={f"shards/{start}": ""}, digest="",
        )  # fmt: skip

    sources = Sources.of([shard(0, 10), shard(10, 500), shard(500, 700), shard(900, 1000)])
    chunk = Chunk(domain="signs", ranges=((9, 10), (600, 601), (700, 900)), cells=())
    assert [rows for rows, _ in sources.overlapping(chunk)] == ["shards/0", "shards/500"]
    assert sources.overlapping(replace(chunk, domain="flags")) == ()


def test_a_changed_profile_prices_its_own_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "devices"
    folder.mkdir()
    raw = yaml.safe_load((resource_folder("device_profiles") / "stm32f746.yaml").read_text())
    (folder / "stm32f746.yaml").write_text(yaml.safe_dump(raw))
    settings = tiny_settings(**ONE, methods=("none", "last_layer"), device_dirs=(str(folder),))
    first = run(settings, tmp_path / "runs")
    (folder / "stm32f746.yaml").write_text(yaml.safe_dump(raw | {"ram_bytes": 400_000}))
    fresh = run(settings, tmp_path / "fresh")
    nothing_is_tuned(monkeypatch)
    changed = run(settings, tmp_path / "runs")
    assert changed.computed == 2 and changed.rows == first.rows and changed.result_hash == fresh.result_hash
    shards = [read_rows(path.read_bytes()) for path in (changed.folder / "shards").iterdir()]
    assert sorted(table.num_rows for table in shards) == [2, 2, 6, 6]
    again = run(settings, tmp_path / "runs")
    assert (again.computed, again.result_hash) == (0, changed.result_hash)


def test_shards_of_a_driver_that_died_before_entering_them_are_adopted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(**ONE, methods=("none", "tinytrain"))
    first = run(settings, tmp_path)
    for path in [first.folder / "manifest.json", first.folder / "_SUCCESS", *(first.folder / "journal").iterdir()]:
        path.unlink()
    nothing_is_tuned(monkeypatch)
    with caplog.at_level("INFO"):
        again = run(settings, tmp_path)
    assert (again.computed, again.reused, again.result_hash) == (0, 2, first.result_hash)
    assert "2 finished shards that no manifest named are adopted" in caplog.text


def test_a_shard_of_another_run_is_not_adopted(tmp_path: Path) -> None:
    settings = tiny_settings(**ONE, methods=("none",))
    other = run(replace(settings, seed=1), tmp_path / "other")
    mine = run(replace(settings, num_tasks=1), tmp_path)
    for path in (other.folder / "shards").iterdir():
        (mine.folder / "shards" / path.name).write_bytes(path.read_bytes())
    larger = run(settings, tmp_path)
    assert (larger.computed, larger.reused) == (1, 1)
    assert {row["seed"] for row in rows_of(larger.folder)} == {
        row["seed"] for row in rows_of(run(settings, tmp_path / "x").folder)
    }


def test_failed_tasks_are_tried_again_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tolerant = DispatchSettings(chunk_seconds=0.001, max_failed_share=1.0)
    settings = tiny_settings(**(ONE | {"num_tasks": 3, "dispatch": tolerant}), methods=("none", "raises"))
    add_method(monkeypatch, Raises("raises", domain="signs/test/fixed-3w2s3q/s0/1"))
    first = run(settings, tmp_path)
    assert (first.failed, first.exit_code) == (1, ExitCode.PARTIAL)
    add_method(monkeypatch, Raises("raises", domain="nowhere"))
    assert run(settings, tmp_path).computed == 0
    again = run(replace(settings, dispatch=replace(tolerant, retry_failed=True)), tmp_path)
    assert (again.computed, again.failed, again.rows, again.exit_code) == (1, 0, first.rows, ExitCode.DONE)
    assert pq.read_table(again.folder / "failures.parquet").num_rows == 0
    assert again.result_hash == run(settings, tmp_path / "fresh").result_hash
    assert json.loads((again.folder / "run.json").read_text())["result_hash"] == again.result_hash


def test_the_result_hash_is_that_of_the_rows_in_any_order_and_cut(tmp_path: Path) -> None:
    first = run(tiny_settings(num_tasks=1, methods=("none", "last_layer")), tmp_path)
    table = pq.read_table(first.folder / "results")
    assert result_hash(table) == first.result_hash == result_hash(table.take(list(range(table.num_rows))[::-1]))
    cut = [rows_digest(table.slice(start, 5)) for start in range(0, table.num_rows, 5)]
    assert hash_of_sum(added(cut), table.num_rows) == first.result_hash
    doubled = pa.concat_tables([table, table.slice(0, 1)])
    column = table.column_names.index("accuracy_after")
    moved = pa.array([value + 1e-15 for value in table["accuracy_after"].to_pylist()])
    others = {result_hash(t) for t in (doubled, table.slice(1), table.set_column(column, table.field(column), moved))}
    assert len(others) == 3 and first.result_hash not in others
    other_host = table.set_column(table.column_names.index("host_ms"), "host_ms", pa.array([7.0] * table.num_rows))
    assert result_hash(other_host) == first.result_hash


def test_the_status_file_says_how_far_it_is(tmp_path: Path) -> None:
    first = run(tiny_settings(**ONE, methods=("none",)), tmp_path)
    run(tiny_settings(**(ONE | {"num_tasks": 5}), methods=("none",)), tmp_path)
    found = json.loads((first.folder / "status.json").read_text())
    assert (found["state"], found["total"], found["done"], found["cached"], found["computed"]) == (
        "finished",
        5,
        5,
        2,
        3,
    )
    assert (found["failed"], found["in_flight"], found["workers"]) == (0, 0, 1) and found["units_per_s"] > 0
    assert 0 < found["busy_s"] <= found["worker_s"] <= found["elapsed_s"] + 0.001  # one worker
    assert found["lost_share"] == pytest.approx(1 - found["busy_s"] / found["worker_s"], abs=0.02)  # milliseconds


def test_the_time_of_workers_follows_their_number(tmp_path: Path) -> None:
    now = [100.0]
    status = RunStatus(open_storage(tmp_path), total=4, cached=0, clock=lambda: now[0])
    assert status.document("running")["lost_share"] is None
    for workers, seconds in ((2, 3.0), (4, 5.0), (0, 1.0), (1, 2.0)):  # after three seconds, two become four, and so on
        status.count_workers(workers)
        now[0] += seconds
    status.count_workers(1)
    status.add(tasks=3, rows=3, failed=0, seconds=20.0)
    status.add(tasks=1, rows=1, failed=1)  # nobody knows how long that which died had been at it
    now[0] += 50.0  # tables are made: nobody counts
    found = status.document("finished")
    assert (found["worker_s"], found["busy_s"], found["lost_share"]) == (28.0, 20.0, round(1 - 20 / 28, 4))
