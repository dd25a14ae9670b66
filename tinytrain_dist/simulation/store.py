"""The run directory: shards are written by workers, and only the driver's manifest says which ones count.

A shard whose file is missing or altered is dropped from the manifest and computed again; a shard that no
manifest names is computed again too. Either way the rows are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinytrain_dist.foundation.errors import RunLockedError, StorageError
from tinytrain_dist.foundation.hashing import bytes_hash, file_hash
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.simulation.request import ShardRecord
from tinytrain_dist.simulation.schema import HOST_COLUMNS, KEY_COLUMNS, SCHEMA_VERSION, result_schema
from tinytrain_dist.simulation.worker import SHARD_FOLDERS, parquet_bytes

_log = logger(__name__)
TASK_COLUMNS = ("task_id", "domain", "split", "task_index", "way", "shots", "support_size", "query_size", "seed")


class RunStore:
    """Shards, manifest and final tables of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: dict[str, ShardRecord] = {}
        self._generation = 0

    def open(self) -> None:
        """Read the manifest and drop every shard whose files are not what it says."""
        path = self.folder / "manifest.json"
        if not path.exists():
            return
        manifest = read_json(path)
        if manifest.get("schema_version") != SCHEMA_VERSION:
            found = manifest.get("schema_version")
            raise RunLockedError(f"{path}: schema version {found}; this program writes {SCHEMA_VERSION}")
        try:
            self._generation, records = int(manifest["generation"]), [_record(raw) for raw in manifest["shards"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path}: no manifest of this program ({type(error).__name__}: {error})") from error
        for record in records:
            if self._is_whole(record):
                self.shards[record.name] = record
            else:
                _log.warning("%s: shard %s is missing or damaged; its tasks are computed again", path, record.name)

    def _is_whole(self, record: ShardRecord) -> bool:
        paths = [(self.folder / name, digest) for name, digest in record.files.items()]
        return all(path.is_file() and file_hash(path) == digest for path, digest in paths)

    def drop_repriced(self, profiles: dict[str, str]) -> None:
        """Drop the shards that were priced with another content of one of ``profiles``: they are computed again."""
        for record in list(self.shards.values()):
            changed = sorted(d for d, digest in record.profiles.items() if profiles.get(d, digest) != digest)
            if changed:
                _log.warning("%s: profile %s has changed; its rows are computed again", self.folder, ", ".join(changed))
                del self.shards[record.name]

    def covered(self) -> set[tuple[str, str, str]]:
        """Return every finished (task id, method, device)."""
        return {
            (task, method, device)
            for record in self.shards.values()
            for method, devices in record.cells
            for device in devices
            for task in record.tasks
        }

    def add(self, record: ShardRecord) -> bool:
        """Enter a shard into the manifest; false when an earlier attempt is there already."""
        if record.name in self.shards:
            return False
        self.shards[record.name] = record
        self.write_manifest()
        return True

    def write_manifest(self) -> None:
        """Replace the manifest by its next generation."""
        self._generation += 1
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "generation": self._generation,
            "shards": [asdict(self.shards[name]) for name in sorted(self.shards)],
        }
        atomic_write(self.folder / "manifest.json", json.dumps(manifest, indent=1).encode())

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of every shard in the manifest."""
        for name in sorted(self.shards):
            yield pq.read_table(self.folder / self.shards[name].rows_file, schema=result_schema())

    def finish(self) -> pa.Table:
        """Write results/, tasks.parquet and failures.parquet from the shards; returns all rows sorted by key.

        Files of shards that no manifest names (left by a crash or a late attempt) are removed.
        """
        table = sorted_rows(pa.concat_tables(self.tables()))
        atomic_write(self.folder / "results" / "part-00000.parquet", parquet_bytes(table))
        tasks = table.select(list(TASK_COLUMNS)).to_pylist()
        known = sorted(tasks, key=lambda row: bool(row["shots"]))  # a failed row does not know its episode
        unique = {row["task_id"]: row for row in known}
        drawn = [unique[task] for task in sorted(unique)]
        schema = pa.schema([table.schema.field(name) for name in TASK_COLUMNS])
        atomic_write(self.folder / "tasks.parquet", parquet_bytes(pa.Table.from_pylist(drawn, schema=schema)))
        failed = table.filter(pc.not_equal(table["status"], "ok"))
        atomic_write(self.folder / "failures.parquet", parquet_bytes(failed))
        self._remove_strays()
        return table

    def _remove_strays(self) -> None:
        named = {self.folder / path for record in self.shards.values() for path in record.files}
        for folder in SHARD_FOLDERS:
            for path in (self.folder / folder).glob("*"):
                if path not in named:
                    path.unlink(missing_ok=True)


def sorted_rows(table: pa.Table) -> pa.Table:
    """Return the rows in order of their key."""
    return table.sort_by([(name, "ascending") for name in KEY_COLUMNS])


def result_hash(table: pa.Table) -> str:
    """Return the hash of the sorted rows without the columns about the computing machine."""
    ours = sorted_rows(table).drop_columns(list(HOST_COLUMNS)).combine_chunks()
    return bytes_hash(json.dumps(ours.to_pylist(), sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; raises ``StorageError`` naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise StorageError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _record(raw: dict[str, Any]) -> ShardRecord:
    return ShardRecord(
        name=raw["name"],
        rows=raw["rows"],
        failed_tasks=raw["failed_tasks"],
        tasks=tuple(raw["tasks"]),
        cells=tuple((method, tuple(devices)) for method, devices in raw["cells"]),
        profiles=dict(raw["profiles"]),
        files=dict(raw["files"]),
    )
