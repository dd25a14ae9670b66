"""A run directory without computing: real shards of rows that failed or not, on a storage that dies at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tiny_simulation import tiny_settings

from tinytrain_dist.foundation.storage import Storage, open_storage
from tinytrain_dist.simulation.finished import write_tables
from tinytrain_dist.simulation.grid import Grid
from tinytrain_dist.simulation.plan_run import plan_run
from tinytrain_dist.simulation.request import Chunk, ShardRecord, UnitSetup
from tinytrain_dist.simulation.row_hash import result_hash
from tinytrain_dist.simulation.schema import KEY_COLUMNS, result_schema
from tinytrain_dist.simulation.shard_files import write_shard
from tinytrain_dist.simulation.store import RunStore
from tinytrain_dist.simulation.worker import failed_result

METHODS, DEVICES = ("none", "tinytrain"), ("stm32f746", "jetson_nano")
GRID = Grid(domains=("signs", "flags"), num_tasks=5, cells=tuple((method, DEVICES) for method in METHODS))


def machine_setup(place: str) -> UnitSetup:
    """Return the setup of the run in ``place``."""
    settings = tiny_settings(num_tasks=GRID.num_tasks, methods=METHODS, devices=DEVICES)
    return replace(plan_run(settings).setup, run_folder=place)


def repriced(setup: UnitSetup, device: str) -> UnitSetup:
    """Return the setup with another content of one profile."""
    old = setup.profile(device)
    new = type(old).model_validate(old.model_dump() | {"ram_bytes": old.ram_bytes + 1024})
    assert new.hash != old.hash
    changed = (new if profile == old else profile for profile in setup.profiles)
    return replace(setup, profiles=tuple(changed))


class Killed(BaseException):
    """Stands for SIGKILL: no clean-up of ours catches it."""


@dataclass
class DyingStorage:
    """A storage whose process dies at the ``left``-th change, before or after it is made."""

    inner: Storage
    left: int | None = None
    after: bool = False

    def _change(self, method: str, *args: Any, **options: Any) -> Any:
        if self.left is None:
            return getattr(self.inner, method)(*args, **options)
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        result = getattr(self.inner, method)(*args, **options)
        if self.left == 0:
            raise Killed
        return result

    def write(self, path: str, data: bytes) -> None:
        self._change("write", path, data)

    def create(self, path: str, data: bytes) -> bool:
        return bool(self._change("create", path, data))

    def replace_if(self, path: str, data: bytes, *, version: str | None) -> str | None:
        replaced: str | None = self._change("replace_if", path, data, version=version)
        return replaced

    def remove(self, path: str) -> None:
        self._change("remove", path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def open_store(storage: Any, setup: UnitSetup, *, guard: Callable[[], None] = lambda: None) -> RunStore:
    """Return the store as a new driver finds it."""
    profiles = {profile.name: profile.hash for profile in setup.profiles}
    store = RunStore(storage, identity=setup.run_identity, profiles=profiles, guard=guard)
    store.open()
    return store


def compute(storage: Any, setup: UnitSetup, chunk: Chunk, *, status: str = "crashed") -> ShardRecord:
    """Write the shard of a chunk as a worker does."""
    results = [failed_result(setup, chunk, i, status=status, message=f"task {i}") for i in chunk.indices()]
    return write_shard(storage, chunk, results, setup=setup)


def missing(store: RunStore) -> Iterator[Chunk]:
    """Yield the missing work, every group of every domain a chunk."""
    for piece in list(GRID.pieces(store.coverage)):
        yield Chunk(domain=piece.group[0], ranges=piece.ranges, cells=piece.group[1])


def complete(place: str, setup: UnitSetup) -> tuple[str, str]:
    """Compute what is missing, finish the run, check its tables.

    Returns the result hash, and that of the same rows if all had failed: what no history may change.
    """
    storage = open_storage(place)
    store = open_store(storage, setup)
    for chunk in missing(store):
        assert store.add(compute(storage, setup, chunk))
    totals = write_tables(store)
    table = pq.read_table(f"{place}/results", schema=result_schema())
    assert result_hash(table) == totals.result_hash
    rows = table.to_pylist()
    keys = {tuple(row[name] for name in KEY_COLUMNS) for row in rows}
    assert len(rows) == len(keys) == GRID.num_units * len(METHODS) * len(DEVICES) == totals.rows
    column = table.schema.get_field_index("status")
    failed = table.set_column(column, table.schema.field(column), pa.array(["crashed"] * table.num_rows))
    return totals.result_hash, result_hash(failed)
