"""The manifest's log: flat at any length, whole or not believed, and of two drivers one loses."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tinytrain_dist.foundation.errors import RunLockedError
from tinytrain_dist.foundation.storage import Storage, open_storage
from tinytrain_dist.simulation import manifest
from tinytrain_dist.simulation.manifest import Manifest
from tinytrain_dist.simulation.request import ShardRecord


@dataclass
class Counting:
    """A storage that counts calls and bytes."""

    inner: Storage
    calls: int = 0
    written: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not callable(method):
            return method

        def counted(*args: Any, **options: Any) -> Any:
            self.calls += 1
            self.written += [len(arg) for arg in args if isinstance(arg, bytes)]
            return method(*args, **options)

        return counted


def record(number: int) -> ShardRecord:
    return ShardRecord(
        name=f"{number:020d}", domain="signs", ranges=((number, number + 1),), cells=(("none", ("a",)),), rows=1,
        failed_tasks=0, profiles={"a": "0" * 16}, files={f"shards/{number}.parquet": "0" * 64}, digest="0" * 64,
    )  # fmt: skip


def add(log: Manifest, *numbers: int) -> None:
    log.pending += [{"add": record(number).document()} for number in numbers]
    log.commit()


def names(log: Manifest) -> list[int]:
    return [int(found.name) for _, found in log.records()]


def test_what_was_committed_is_there_in_order(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    log = Manifest(storage)
    add(log, 1, 2)
    log.fold()
    add(log, 3)
    log.pending.append({"drop": [record(2).name]})
    log.commit()
    add(log, 2)
    log.pending.append({"add": record(9).document()})  # never committed
    again = Manifest(storage).open()
    assert names(again) == names(log) == [1, 3, 2] and again.generation == log.generation == 5 - 1


def test_a_commit_costs_the_same_after_thousands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FOLD_SEGMENTS", 16)
    memory = open_storage("/dev/shm" if Path("/dev/shm").is_dir() else tmp_path)
    storage = Counting(memory.below(f"{tmp_path.name}-{os.getpid()}"))
    log, costs = Manifest(storage), []  # type: ignore[arg-type]
    for start in range(0, 2048, 512):
        calls, written = storage.calls, sum(storage.written)
        for number in range(start, start + 512):
            add(log, number)
        costs.append((storage.calls - calls, sum(storage.written) - written))
    assert costs[0][0] == costs[-1][0] and costs[-1][0] / 512 < 2.5
    assert costs[-1][1] < 1.2 * costs[0][1]
    assert names(Manifest(storage.inner).open()) == list(range(2048))
    shutil.rmtree(storage.inner.location)


def test_a_damaged_segment_or_part_is_not_believed_and_the_rest_is(tmp_path: Path) -> None:
    log = Manifest(open_storage(tmp_path))
    add(log, 1)
    log.fold()
    for number in (2, 3):
        add(log, number)
    segment = tmp_path / "journal" / "0000000002.json"
    segment.write_bytes(segment.read_bytes().replace(b'"rows":1', b'"rows":7'))
    assert names(Manifest(open_storage(tmp_path)).open()) == [1, 3]
    (part,) = (tmp_path / "journal").glob("part-0000000001-0-*.json")
    part.write_bytes(part.read_bytes()[:-5])
    reopened = Manifest(open_storage(tmp_path)).open()
    assert names(reopened) == [3]
    add(reopened, 4)
    assert names(Manifest(open_storage(tmp_path)).open()) == [3, 4]


def test_of_two_drivers_one_learns_that_it_has_lost(tmp_path: Path) -> None:
    first, second = Manifest(open_storage(tmp_path)).open(), Manifest(open_storage(tmp_path)).open()
    add(first, 1)
    with pytest.raises(RunLockedError, match="another driver writes to this run"):
        add(second, 2)
    assert names(Manifest(open_storage(tmp_path)).open()) == [1]


def test_segments_of_before_the_snapshot_never_count(tmp_path: Path) -> None:
    log = Manifest(open_storage(tmp_path))
    add(log, 1)
    old = (tmp_path / "journal" / "0000000001.json").read_bytes()
    log.fold()
    (tmp_path / "journal" / "0000000001.json").write_bytes(old)  # its removal was cut short
    assert names(Manifest(open_storage(tmp_path)).open()) == [1]


def test_a_lost_snapshot_is_found_again_from_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FOLD_SEGMENTS", 2)
    monkeypatch.setattr(manifest, "MERGED_PARTS", 2)
    storage, log = open_storage(tmp_path), Manifest(open_storage(tmp_path))
    for number in range(1, 12):
        add(log, number)
    for data in (b"", storage.read("manifest.json").replace(b'"generation": 10', b'"generation": 11')):
        storage.write("manifest.json", data)
        again = Manifest(storage).open()
        assert names(again) == list(range(1, 12)) and again.generation == 11
    storage.remove("manifest.json")
    again = Manifest(storage).open()
    add(again, 12)
    assert names(Manifest(storage).open()) == list(range(1, 13))


def test_a_manifest_of_the_unsealed_version_is_read(tmp_path: Path) -> None:
    storage, log = open_storage(tmp_path), Manifest(open_storage(tmp_path))
    for number in (1, 2):
        add(log, number)
        log.fold()
    document = json.loads(storage.read("manifest.json"))
    for part in document["parts"]:
        del part["first"], part["number"]
    storage.write("manifest.json", json.dumps({**document, "schema_version": 2, "sha256": None}).encode())
    assert names(Manifest(storage).open()) == [1, 2] and Manifest(storage).open().parts == log.parts


def test_what_a_death_while_folding_left_is_removed_by_the_next_fold(tmp_path: Path) -> None:
    storage, log = open_storage(tmp_path), Manifest(open_storage(tmp_path))
    add(log, 1)
    segment = storage.read("journal/0000000001.json")
    log.fold()
    (part,) = storage.names("journal")
    storage.write("journal/0000000001.json", segment)
    storage.write(part.replace("-0-", "-1-"), storage.read(part))
    add(again := Manifest(storage).open(), 2)
    again.fold()
    assert sorted(storage.names("journal")) == sorted(entry["file"] for entry in again.parts)
    assert names(Manifest(storage).open()) == [1, 2]
