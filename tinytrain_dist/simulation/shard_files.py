"""The files of one shard: rows, plans, Fisher information, learning curves; written by a worker, read on resume.

The rows come last and carry in their footer what the manifest would say about the shard, and in their name their
own SHA-256: a shard whose driver died before it could be entered is whole by its own testimony, or it is nothing.
"""

from __future__ import annotations

import io
import json
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.foundation.hashing import bytes_hash, canonical_json
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.graphs.update_plan import plan_to_json
from tinytrain_dist.simulation.request import Chunk, ShardRecord, UnitSetup, record_of
from tinytrain_dist.simulation.row_hash import rows_digest
from tinytrain_dist.simulation.rows import Row
from tinytrain_dist.simulation.schema import result_schema
from tinytrain_dist.simulation.task_table import sorted_rows
from tinytrain_dist.simulation.unit import UnitResult

FISHER_SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("checkpoint", pa.string()),
        ("layer", pa.int32()),
        ("potential", pa.float64()),
        ("delta", pa.list_(pa.float64())),
    ]
)
PLAN_SCHEMA = pa.schema([("plan_hash", pa.string()), ("plan", pa.string())])
CURVE_SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("checkpoint", pa.string()),
        ("method", pa.string()),
        ("variant", pa.string()),
        ("plan_hash", pa.string()),
        ("iteration", pa.int32()),
        ("accuracy", pa.float64()),
        ("loss", pa.float64()),
    ]
)
SHARD_FOLDERS = ("shards", "plans", "fisher", "curves")
_FOOTER = b"tinytrain_shard"
_DIGITS = 32


def write_shard(storage: Storage, chunk: Chunk, results: list[UnitResult], *, setup: UnitSetup) -> ShardRecord:
    """Write the files of a chunk, each at once or not at all; folders of nothing get no file.

    A file's name holds its content hash: a late second attempt never replaces what the manifest names.
    """
    rows = sorted_rows(pa.Table.from_pylist([row for r in results for row in r.rows], schema=result_schema()))
    files = {}
    for folder, table in _side_tables(chunk, results, setup).items():
        if table.num_rows:
            path, data = _named(folder, chunk, parquet_bytes(table))
            storage.write(path, data)
            files[path] = bytes_hash(data)
    record = _record(chunk, rows, files, setup)
    footer = {_FOOTER: canonical_json({"identity": setup.run_identity, "record": record.document()}).encode()}
    path, data = _named("shards", chunk, parquet_bytes(rows.replace_schema_metadata(rows.schema.metadata | footer)))
    storage.write(path, data)
    record.files[path] = bytes_hash(data)
    return record


def _side_tables(chunk: Chunk, results: list[UnitResult], setup: UnitSetup) -> dict[str, pa.Table]:
    return {
        "plans": pa.Table.from_pylist(_plan_rows(results), schema=PLAN_SCHEMA),
        "fisher": pa.Table.from_pylist(_fisher_rows(chunk, results, setup), schema=FISHER_SCHEMA),
        "curves": pa.Table.from_pylist(_curve_rows(chunk, results, setup), schema=CURVE_SCHEMA),
    }


def _named(folder: str, chunk: Chunk, data: bytes) -> tuple[str, bytes]:
    return f"{folder}/{chunk.name}-{bytes_hash(data, length=_DIGITS)}.parquet", data


def _record(chunk: Chunk, rows: pa.Table, files: dict[str, str], setup: UnitSetup) -> ShardRecord:
    status, tasks = rows["status"].to_pylist(), rows["task_index"].to_pylist()
    failed = {task for task, found in zip(tasks, status, strict=True) if found != "ok"}
    return ShardRecord(
        name=chunk.name,
        domain=chunk.domain,
        ranges=chunk.ranges,
        cells=chunk.cells,
        rows=rows.num_rows,
        failed_tasks=len(failed),
        profiles={d: setup.profile(d).hash for _, devices in chunk.cells for d in devices},
        files=files,
        digest=rows_digest(rows),
    )


def testimony(path: str, data: bytes) -> tuple[str, ShardRecord] | None:
    """Return identity and record that a rows file gives of itself; ``None`` where it is not whole.

    ``path`` is the file's path below the run folder, ``data`` its bytes.
    """
    if not is_as_named(path, data):
        return None
    try:
        metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
        document = json.loads(metadata[_FOOTER])
        record = record_of(document["record"])
    except (pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    record.files[path] = bytes_hash(data)
    return str(document["identity"]), record


def is_as_named(path: str, data: bytes) -> bool:
    """Say whether a shard's file holds what it was written with: its name ends with its hash."""
    return path.endswith(f"-{bytes_hash(data, length=_DIGITS)}.parquet")


def read_rows(data: bytes, *, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of a rows file, without its testimony."""
    table = pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=False)
    return table.replace_schema_metadata(result_schema().metadata)


def parquet_bytes(table: pa.Table, *, compression: Literal["lz4", "zstd"] = "lz4") -> bytes:
    """Return the table as one Parquet file; texts repeat and get a dictionary, numbers are only slowed down by one.

    ``lz4`` is for what is read again once or twice (three times as fast as zstd), ``zstd`` for what is kept.
    """
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    buffer = io.BytesIO()
    pq.write_table(
        table, buffer, compression=compression, compression_level=1 if compression == "zstd" else None,
        use_dictionary=texts or False,
    )  # fmt: skip
    return buffer.getvalue()


def _plan_rows(results: list[UnitResult]) -> list[Row]:
    plans = {key: plan for result in results for key, plan in result.plans.items()}
    return [{"plan_hash": key, "plan": plan_to_json(plan)} for key, plan in sorted(plans.items())]


def _fisher_rows(chunk: Chunk, results: list[UnitResult], setup: UnitSetup) -> list[Row]:
    return [
        {
            "task_id": setup.spec(chunk.domain, index).task_id,
            "checkpoint": setup.checkpoint,
            "layer": layer,
            "potential": result.fisher.potential(layer),
            "delta": result.fisher.channels[layer].tolist(),
        }
        for index, result in zip(chunk.indices(), results, strict=True)
        if result.fisher is not None
        for layer in result.fisher.layers
    ]


def _curve_rows(chunk: Chunk, results: list[UnitResult], setup: UnitSetup) -> list[Row]:
    """Return query accuracy and training loss along the iterations, where curves were asked for."""
    return [
        {
            "task_id": setup.spec(chunk.domain, index).task_id,
            "checkpoint": setup.checkpoint,
            "method": method,
            "variant": variant,
            "plan_hash": plan_hash,
            "iteration": point.iteration,
            "accuracy": point.accuracy,
            "loss": outcome.losses[point.iteration - 1],
        }
        for index, result in zip(chunk.indices(), results, strict=True)
        for (variant, method, plan_hash), outcome in sorted(result.curves.items(), key=lambda item: item[0])
        for point in outcome.curve
    ]
