"""A run in an object store reads like the same run on a local disk, and its page goes back to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from s3_server import REFUSED

from tinytrain_dist.foundation.errors import ConfigError, ExitCode, StorageError
from tinytrain_dist.foundation.storage import Storage, open_storage
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.reading import read_run
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.simulation.manifest import Manifest
from tinytrain_dist.simulation.request import ShardRecord
from tinytrain_dist.verbs import compare, report

MakeRun = Callable[..., Path]


def upload(folder: Path, location: str) -> Storage:
    storage = open_storage(location)
    for name in open_storage(folder).names():
        storage.write(name, (folder / name).read_bytes())
    return storage


def test_the_same_rows_come_from_a_bucket(make_run: MakeRun, s3_bucket: str) -> None:
    local = make_run(num_files=3)
    upload(local, f"{s3_bucket}/runs/quick")
    here, there = open_run(local), open_run(f"{s3_bucket}/runs/quick")
    assert there.location == f"{s3_bucket}/runs/quick" and here.location == str(local)
    assert there.record == here.record and there.num_rows == here.num_rows
    assert len(there.result_files()) == 3
    assert comparison_table(there, by="device") == comparison_table(here, by="device")


def test_the_copy_goes_with_the_opened_run(make_run: MakeRun, s3_bucket: str) -> None:
    upload(make_run(), f"{s3_bucket}/run")
    run = open_run(f"{s3_bucket}/run")
    copy = run.path
    assert copy.is_dir() and str(copy) != run.location
    del run
    assert not copy.exists()


def test_side_folders_are_fetched_when_they_are_asked_for(make_run: MakeRun, s3_bucket: str) -> None:
    local = make_run()
    (local / "fisher" / "deep").mkdir(parents=True)
    (local / "fisher" / "deep" / "a.parquet").write_bytes((local / "results" / "part-0.parquet").read_bytes())
    upload(local, f"{s3_bucket}/run")
    run = open_run(f"{s3_bucket}/run")
    assert not (run.path / "fisher").exists()
    assert [file.relative_to(run.path).as_posix() for file in run.folder.files("fisher")] == ["fisher/deep/a.parquet"]
    assert run.folder.files("curves") == []


def write_manifest(folder: Path) -> None:
    manifest = Manifest(open_storage(folder)).open()
    for file in sorted((folder / "shards").iterdir()):
        record = ShardRecord(
            name=file.stem, domain="signs", ranges=(), cells=(), rows=0, failed_tasks=0, profiles={},
            files={f"shards/{file.name}": "0"}, digest="0",
        )  # fmt: skip
        manifest.pending.append({"add": record.document()})
    manifest.commit()


def test_an_unfinished_run_shows_its_shards(make_run: MakeRun, s3_bucket: str) -> None:
    local = make_run()
    (local / "results").rename(local / "shards")
    write_manifest(local)
    upload(local, f"{s3_bucket}/run")
    reading = read_run(f"{s3_bucket}/run")
    assert reading.exit_code == ExitCode.PARTIAL
    assert reading.run.num_rows == read_run(local).run.num_rows > 0
    assert reading.run.location == f"{s3_bucket}/run"


@pytest.mark.slow
def test_the_verbs_take_a_uri(make_run: MakeRun, s3_bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    local = make_run()
    storage = upload(local, f"{s3_bucket}/run")
    assert compare.main([str(local), "--json"]) == ExitCode.DONE
    here = capsys.readouterr().out
    assert compare.main([storage.location, "--json"]) == ExitCode.DONE
    assert capsys.readouterr().out == here
    assert report.main([storage.location, "--json"]) == ExitCode.DONE
    printed = json.loads(capsys.readouterr().out)
    assert printed["page"] == f"{s3_bucket}/run/report.html"
    page = storage.read("report.html")
    assert len(page) == printed["bytes"] and page.startswith(b"<!DOCTYPE html>")
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in page
    assert os.environ["AWS_ACCESS_KEY_ID"].encode() not in page


def test_what_is_wrong_is_said_of_the_uri(make_run: MakeRun, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = upload(make_run(), f"{s3_bucket}/run")
    with pytest.raises(StorageError, match=rf"^{s3_bucket}/none: no such run \(it has no run\.json\)"):
        open_run(f"{s3_bucket}/none")
    storage.write("results/part-0.parquet", storage.read("results/part-0.parquet")[:200])
    with pytest.raises(StorageError, match=rf"^{s3_bucket}/run/results/part-0\.parquet: damaged result file"):
        open_run(storage.location)
    storage.remove("results/part-0.parquet")
    with pytest.raises(StorageError, match=rf"^{s3_bucket}/run/results: no result files"):
        read_run(storage.location)
    with pytest.raises(ConfigError, match=r"this scheme is unknown; allowed: a local path, file://, s3://, gs://"):
        open_run("hdfs://cluster/run")
    monkeypatch.setenv("AWS_ENDPOINT_URL", REFUSED)
    with pytest.raises(StorageError, match=rf"{s3_bucket}/run/run\.json: cannot be read: {REFUSED} cannot be reached"):
        open_run(storage.location)


def test_what_is_made_beside_the_copy_is_brought_back_with_its_folders(make_run: MakeRun, s3_bucket: str) -> None:
    storage = upload(make_run(), f"{s3_bucket}/run")
    run = open_run(storage.location)
    made = run.path / "wandb" / "offline-run-1"
    (made / "files").mkdir(parents=True)
    (made / "files" / "config.yaml").write_bytes(b"x: 1")
    (made / "run.wandb").write_bytes(b"\x00\x01")
    assert run.folder.publish(made) == f"{s3_bucket}/run/wandb/offline-run-1"
    assert list(storage.names("wandb")) == ["wandb/offline-run-1/files/config.yaml", "wandb/offline-run-1/run.wandb"]
    assert storage.read("wandb/offline-run-1/run.wandb") == b"\x00\x01"
