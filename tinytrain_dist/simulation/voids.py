"""What no longer counts: a void at a place of the log takes rows of cells away from every shard added before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tinytrain_dist.simulation.ranges import Ranges
from tinytrain_dist.simulation.request import ShardRecord, cells_of

Void = tuple[int, dict[str, Any]]
"""Place in the log, and what is void: a ``device``, or ``ranges`` and ``cells`` of a ``domain``."""


def voids_of(record: ShardRecord, *, place: int, voids: Iterable[Void]) -> tuple[Void, ...]:
    """Return the voids that may concern a shard added at ``place``."""
    return tuple(void for void in voids if void[0] > place and _concerns(void[1], record.domain, record.ranges))


def _concerns(void: dict[str, Any], domain: str, ranges: Ranges) -> bool:
    if "device" in void:
        return True
    first, last = void["ranges"][0][0], void["ranges"][-1][1]
    return bool(void["domain"] == domain and first < ranges[-1][1] and last > ranges[0][0])


def void_rows(table: pa.Table, voids: Iterable[Void]) -> NDArray[np.bool_]:
    """Return which rows of a shard no longer count, bool [rows]; ``voids`` are those that concern it."""
    gone = np.zeros(table.num_rows, dtype=np.bool_)
    devices, methods = (np.array(table[name].to_pylist(), dtype=np.str_) for name in ("device", "method"))
    indices = table["task_index"].to_numpy()
    for _, void in voids:
        if "device" in void:
            gone |= devices == void["device"]
            continue
        tasks = np.zeros(table.num_rows, dtype=np.bool_)
        for start, stop in void["ranges"]:
            tasks |= (indices >= start) & (indices < stop)
        for method, own in cells_of(void["cells"]):
            gone |= tasks & (methods == method) & np.isin(devices, own)
    return gone
