"""Ten million result rows: from shards to the tables of a finished run, and from these to a table of averages."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from engine_scale import DEVICES, FULL_CELLS, METHODS

from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.simulation.finished import write_tables
from tinytrain_dist.simulation.request import ShardRecord
from tinytrain_dist.simulation.row_hash import rows_digest
from tinytrain_dist.simulation.schema import COLUMNS, result_schema
from tinytrain_dist.simulation.shard_files import parquet_bytes
from tinytrain_dist.simulation.store import RunStore
from tinytrain_dist.simulation.task_table import sorted_rows

TASKS_PER_SHARD = 50
ROWS_PER_TASK = len(DEVICES) * len(METHODS)


def shard_rows(domain: str, first: int) -> pa.Table:
    """Return the rows of one shard: every column filled, numbers drawn, texts as many different ones as a run has."""
    random = np.random.default_rng(first)
    count = TASKS_PER_SHARD * ROWS_PER_TASK
    tasks = np.repeat(np.arange(first, first + TASKS_PER_SHARD), ROWS_PER_TASK)
    texts = {
        "task_id": [f"{domain}/test/fixed-5w5s10q/s0/{task}" for task in tasks],
        "method": np.tile(np.repeat(METHODS, len(DEVICES)), TASKS_PER_SHARD),
        "device": np.tile(DEVICES, TASKS_PER_SHARD * len(METHODS)),
        "domain": [domain] * count,
        "status": ["ok"] * count,
        "plan_hash": [f"{number:016x}" for number in random.integers(0, 1 << 60, count)],
    }
    columns = []
    for column in COLUMNS:
        if column.name in texts:
            columns.append(pa.array(texts[column.name], pa.string()))
        elif column.name == "task_index":
            columns.append(pa.array(tasks, pa.int64()))
        elif pa.types.is_list(column.type):
            columns.append(pa.array([[5, 5, 5, 5, 5]] * count, column.type))
        elif pa.types.is_string(column.type):
            columns.append(pa.array([column.name] * count, pa.string()))
        elif pa.types.is_floating(column.type):
            columns.append(pa.array(random.random(count)))
        else:
            columns.append(pa.array(random.integers(0, 1_000_000, count), column.type))
    return pa.table(columns, schema=result_schema())


def fill(folder: str, num_rows: int) -> None:
    """Write shards of ``num_rows`` rows and their manifest."""
    store = RunStore(open_storage(folder))
    for number in range(-(-num_rows // (TASKS_PER_SHARD * ROWS_PER_TASK))):
        domain, first = "abcde"[number % 5], (number // 5) * TASKS_PER_SHARD
        table = sorted_rows(shard_rows(domain, first))
        data, path = parquet_bytes(table), f"shards/{number:020d}.parquet"
        store.storage.write(path, data)
        record = ShardRecord(
            name=f"{number:020d}", domain=domain, ranges=((first, first + TASKS_PER_SHARD),), cells=FULL_CELLS,
            rows=table.num_rows, failed_tasks=0, profiles={}, files={path: bytes_hash(data)}, digest=rows_digest(table),
        )  # fmt: skip
        assert store.add(record)
        if store.num_pending >= 64:
            store.commit()
    store.fold()


def finish_and_aggregate(num_rows: int, folder: str) -> dict[str, Any]:
    """Return seconds and peak memory of finishing a run of so many rows, and of a table of it. For a process."""
    fill(folder, num_rows)
    filled = _peak()
    start = time.monotonic()
    store = RunStore(open_storage(folder))
    store.open()
    opened = time.monotonic()
    totals = write_tables(store)
    finished, peak = time.monotonic(), _peak()
    con = duckdb.connect(config={"memory_limit": "1GB", "threads": 2})
    table = con.sql(
        f"SELECT device, method, domain, count(*), avg(accuracy_after), stddev(accuracy_after), median(latency_ms), "
        f"median(energy_mj), avg((fits = 'yes')::INT) FROM '{Path(folder) / 'results'}/*.parquet' "
        f"WHERE status = 'ok' GROUP BY ALL"
    ).fetchall()
    assert len(table) == ROWS_PER_TASK * 5 and totals.rows >= num_rows
    return {
        "rows": totals.rows, "open_s": opened - start, "finish_s": finished - opened,
        "table_s": time.monotonic() - finished, "filled_bytes": filled, "finish_bytes": peak, "peak_bytes": _peak(),
    }  # fmt: skip


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
