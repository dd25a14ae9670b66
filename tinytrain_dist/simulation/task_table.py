"""What the rows say about tasks: one row a task for ``tasks.parquet``, and how many of them failed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinytrain_dist.simulation.coverage import Bitmap
from tinytrain_dist.simulation.schema import result_schema

TASK_COLUMNS = ("task_id", "domain", "split", "task_index", "way", "shots", "support_size", "query_size", "seed")
_Key = tuple[str, int]


def sorted_rows(table: pa.Table) -> pa.Table:
    """Return the rows in order of domain, task index, checkpoint, method, variant and device."""
    codes = {name: _codes(table[name]) for name in ("domain", "checkpoint", "method", "variant", "device")}
    tasks = table["task_index"].to_numpy()
    key = codes.pop("domain") * (tasks.max(initial=0) + 1) + tasks  # one number a row sorts faster than six
    for column in codes.values():
        width = int(column.max(initial=0)) + 1
        assert int(key.max(initial=0)) < (1 << 62) // width, "the key of a row does not fit into 63 bits"
        key = key * width + column
    if (key[1:] >= key[:-1]).all():
        return table  # as the workers wrote them
    return table.take(pa.array(np.argsort(key, kind="stable")))


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return each text's place among the sorted distinct ones: texts repeat, so numbers sort far faster."""
    encoded = column.combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    place = {text: number for number, text in enumerate(sorted(texts))}
    places: NDArray[np.int64] = np.array([place[text] for text in texts], dtype=np.int64)
    codes: NDArray[np.int64] = places[np.asarray(encoded.indices)]
    return codes


class TaskTable:
    """Takes rows part by part; keeps one row a task (about 180 bytes), and a bit that says whether it failed."""

    def __init__(self) -> None:
        self._seen: dict[str, Bitmap] = {}
        self._failed: dict[str, Bitmap] = {}
        self._tables: list[pa.Table] = []
        self._undrawn: dict[_Key, dict[str, object]] = {}

    @property
    def num_tasks(self) -> int:
        """Tasks with any row."""
        return sum(bitmap.count() for bitmap in self._seen.values()) + len(self._undrawn)

    @property
    def num_failed(self) -> int:
        """Tasks with a row that failed."""
        return sum(bitmap.count() for bitmap in self._failed.values())

    def add(self, rows: pa.Table) -> None:
        """Take sorted rows."""
        failed = rows.filter(pc.not_equal(rows["status"], "ok")).select(["domain", "task_index"])
        for row in failed.group_by(["domain", "task_index"]).aggregate([]).to_pylist():
            self._failed.setdefault(row["domain"], Bitmap()).assign(row["task_index"], row["task_index"] + 1, True)
        tasks = rows.select(list(TASK_COLUMNS))
        is_drawn = pc.greater(pc.list_value_length(tasks["shots"]), 0)  # a failed row does not know its episode
        self._take(_first_of_each(tasks.filter(is_drawn)))
        for row in _first_of_each(tasks.filter(pc.invert(is_drawn))).to_pylist():
            if not self._has(row["domain"], row["task_index"]):
                self._undrawn[row["domain"], row["task_index"]] = row

    def _take(self, tasks: pa.Table) -> None:
        keys = list(zip(tasks["domain"].to_pylist(), tasks["task_index"].to_pylist(), strict=True))
        new = [not self._has(*key) for key in keys]
        for key, is_new in zip(keys, new, strict=True):
            if is_new:
                self._seen.setdefault(key[0], Bitmap()).assign(key[1], key[1] + 1, True)
                self._undrawn.pop(key, None)
        self._tables.append(tasks.filter(pa.array(new, pa.bool_())))

    def _has(self, domain: str, index: int) -> bool:
        return domain in self._seen and bool(self._seen[domain].bits(index, index + 1)[0])

    def table(self) -> pa.Table:
        """Return one row a task, in order of the tasks' names."""
        schema = pa.schema([result_schema().field(name) for name in TASK_COLUMNS])
        undrawn = pa.Table.from_pylist(list(self._undrawn.values()), schema=schema)
        whole = pa.concat_tables([*(t.replace_schema_metadata() for t in self._tables), undrawn])
        return whole.take(pc.sort_indices(whole["task_id"])).combine_chunks()


def _first_of_each(tasks: pa.Table) -> pa.Table:
    """Return the first row of each run of equal tasks in a sorted table."""
    if not tasks.num_rows:
        return tasks
    index, domain = tasks["task_index"].to_numpy(), _codes(tasks["domain"])
    changes = (np.diff(index) != 0) | (np.diff(domain) != 0)
    return tasks.filter(pa.array(np.concatenate(([True], changes))))
