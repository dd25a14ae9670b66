"""What an extended run need not find out again: Fisher information and tuned outcomes of its own finished rows.

Exact, hence always on: the values are stored as the 64-bit numbers they were, both depend on the task and on keys
of the run's identity alone, and equal plans (by hash) of the same tuner have one outcome. Rows that failed are
never a source. Of other runs nothing is taken.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.adaptation.fisher import FisherInformation
from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.simulation.request import Chunk, UnitSetup
from tinytrain_dist.simulation.rows import OUTCOME_COLUMNS, StoredOutcome
from tinytrain_dist.simulation.shard_files import is_as_named, read_rows
from tinytrain_dist.simulation.unit import StoredTask

_COLUMNS = ["task_index", "method", "plan_hash", "host_ms", *OUTCOME_COLUMNS]


def read_stored(storage: Storage, chunk: Chunk, *, setup: UnitSetup) -> dict[int, StoredTask]:
    """Return what the shards named in ``chunk.stored`` know about its tasks, by task index.

    A shard that is gone or not as it was written is no source: its tasks are simply computed.
    """
    found: dict[int, StoredTask] = defaultdict(StoredTask)
    wanted = set(chunk.indices())
    ids = {setup.spec(chunk.domain, index).task_id: index for index in wanted} if chunk.stored else {}
    for rows_file, fisher_file in chunk.stored:
        try:
            _add_outcomes(found, _read(storage, rows_file), wanted)
            _add_fisher(found, _read(storage, fisher_file), ids)
        except pa.ArrowException:
            continue
    return found


def _read(storage: Storage, path: str) -> bytes | None:
    data = storage.read_if_there(path) if path else None
    return data if data is not None and is_as_named(path, data) else None


def _add_outcomes(found: dict[int, StoredTask], data: bytes | None, wanted: set[int]) -> None:
    if data is None:
        return
    for row in read_rows(data, columns=_COLUMNS).to_pylist():
        is_outcome = row["status"] in ("ok", "diverged") and row["accuracy_before"] is not None
        if row["task_index"] in wanted and is_outcome:
            key = METHODS[row["method"]].tuner, row["plan_hash"]
            columns = {name: row[name] for name in OUTCOME_COLUMNS}
            found[row["task_index"]].outcomes[key] = StoredOutcome(columns, row["host_ms"])


def _add_fisher(found: dict[int, StoredTask], data: bytes | None, ids: dict[str, int]) -> None:
    if data is None:
        return
    channels: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
    for row in pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False).to_pylist():
        if row["task_id"] in ids:
            channels[ids[row["task_id"]]][row["layer"]] = np.array(row["delta"], dtype=np.float64)
    for index, layers in channels.items():
        if all(np.isfinite(delta).all() for delta in layers.values()):  # measured again, it says what is wrong
            found[index].fisher = FisherInformation(layers)
