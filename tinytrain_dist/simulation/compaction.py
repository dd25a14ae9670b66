"""Shards -> the tables people read: ``results/`` in parts, ``tasks.parquet``, ``failures.parquet``; in one pass.

Shards go by in the order of their tasks; a part of results/ is written as soon as its rows are together. What grows
with the run is one row a task, and the rows that failed: these two tables are one file each. Inside a part the rows
are sorted by domain, task index, checkpoint, method, variant and device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.simulation.row_hash import added, hash_of_sum, rows_digest
from tinytrain_dist.simulation.schema import result_schema
from tinytrain_dist.simulation.shard_files import parquet_bytes, read_rows
from tinytrain_dist.simulation.store import RunStore
from tinytrain_dist.simulation.task_table import TaskTable, sorted_rows
from tinytrain_dist.simulation.voids import Void, void_rows, voids_of

PART_ROWS = 131_072
READ_AHEAD = 8


@dataclass(kw_only=True)
class Totals:
    """What a run holds.

    Attributes
    ----------
    failed_tasks
        Tasks with a row whose status is not ``ok``.
    files
        Every table that was written -> SHA-256 of its bytes.
    """

    rows: int = 0
    tasks: int = 0
    failed_tasks: int = 0
    result_hash: str = ""
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Shard:
    """One shard as compaction needs it: where, which rows, and what no longer counts."""

    domain: str
    first: int
    path: str
    sha256: str
    digest: str
    voids: tuple[Void, ...]

    def read(self, storage: Storage) -> tuple[pa.Table, str]:
        """Return the rows that count and their digest."""
        data = storage.read(self.path)
        if bytes_hash(data) != self.sha256:
            raise StorageError(f"{storage.location}/{self.path}: was damaged while the run was going on; run it again")
        table, digest = read_rows(data), self.digest
        if self.voids:
            table = table.filter(pa.array(~void_rows(table, self.voids)))
            digest = rows_digest(table)
        return table, digest


def compact(store: RunStore) -> Totals:
    """Write results/, tasks.parquet and failures.parquet from the shards; remove what no longer belongs there."""
    totals, writer = Totals(), _Writer(store.storage, guard=store.guard)
    digests: list[str] = []
    with ThreadPoolExecutor(2) as readers:
        for table, digest in _ahead(readers, store.storage, _shards(store)):
            digests.append(digest)
            writer.add(table)
    totals.files = writer.close()
    totals.rows, totals.tasks, totals.failed_tasks = writer.num_rows, writer.tasks.num_tasks, writer.tasks.num_failed
    assert totals.rows == store.coverage.count(), f"{totals.rows} rows for {store.coverage.count()} finished cells"
    totals.result_hash = hash_of_sum(added(digests), totals.rows)
    for name in list(store.storage.names("results")):
        if name not in totals.files:
            store.guard()
            store.storage.remove(name)
    return totals


def _shards(store: RunStore) -> list[_Shard]:
    voids = store.voids()
    found = [
        _Shard(
            record.domain, record.ranges[0][0], record.rows_file, record.files[record.rows_file], record.digest,
            voids_of(record, place=place, voids=voids),
        )
        for place, record in store.records()
    ]  # fmt: skip
    return sorted(found, key=lambda shard: (shard.domain, shard.first, shard.path))


def _ahead(readers: ThreadPoolExecutor, storage: Storage, shards: list[_Shard]) -> Iterator[tuple[pa.Table, str]]:
    """Yield the shards' rows in order, a few being read at a time."""
    waiting, queue = iter(shards), deque[Future[tuple[pa.Table, str]]]()
    queue += (readers.submit(shard.read, storage) for shard in islice(waiting, READ_AHEAD))
    while queue:
        yield queue.popleft().result()
        queue += (readers.submit(shard.read, storage) for shard in islice(waiting, 1))


class _Writer:
    """Cuts a stream of rows into parts, and keeps an account of tasks and failures."""

    def __init__(self, storage: Storage, *, guard: Callable[[], None]) -> None:
        self._guard = guard
        self._storage, self._tables, self._num_waiting = storage, deque[pa.Table](), 0
        self._files: dict[str, str] = {}
        self._background, self._writing = ThreadPoolExecutor(1), deque[Future[None]]()
        self._failures: list[pa.Table] = []
        self.tasks, self.num_rows = TaskTable(), 0

    def add(self, table: pa.Table) -> None:
        """Take the rows of a shard."""
        self._tables.append(table)
        self._num_waiting += table.num_rows
        while self._num_waiting >= PART_ROWS:
            self._write_part(PART_ROWS)

    def close(self) -> dict[str, str]:
        """Write what is left; return every file with its SHA-256."""
        if self._num_waiting or not self._files:
            self._write_part(self._num_waiting)
        self._write("tasks.parquet", self.tasks.table())
        self._write("failures.parquet", pa.concat_tables(self._failures))
        self._wait(0)
        self._background.shutdown()
        return self._files

    def _write_part(self, num_rows: int) -> None:
        waiting = pa.concat_tables(self._tables) if self._tables else result_schema().empty_table()
        rest = waiting.slice(num_rows)
        self._tables, self._num_waiting = deque([rest] if rest.num_rows else []), rest.num_rows
        part = sorted_rows(waiting.slice(0, num_rows))
        self.num_rows += part.num_rows
        self.tasks.add(part)
        self._failures.append(part.filter(pc.not_equal(part["status"], "ok")))
        self._write(f"results/part-{len(self._files):05d}.parquet", part)

    def _write(self, name: str, table: pa.Table) -> None:
        """Write a table beside the reading of the next shards; at most one waits for that."""
        self._files[name] = ""
        self._writing.append(self._background.submit(self._store, name, table))
        self._wait(1)

    def _store(self, name: str, table: pa.Table) -> None:
        data = parquet_bytes(table, compression="zstd")
        self._guard()
        self._storage.write(name, data)
        self._files[name] = bytes_hash(data)

    def _wait(self, num_left: int) -> None:
        while len(self._writing) > num_left:
            self._writing.popleft().result()
