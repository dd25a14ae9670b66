"""What stands beside the result rows (learning curves, Fisher potentials), as DuckDB views; bounded by a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import duckdb

from tinytrain_dist.reporting.runs import RunResults

SideFolder = Literal["curves", "fisher"]
MAX_FILES = 4000
"""A run of many small chunks has a file per chunk. File names hold hashes: any evenly spaced ones are a fair sample."""


@dataclass(frozen=True, kw_only=True)
class SideTable:
    """A view over the files of one side folder, ``used`` of ``found`` of them."""

    view: str
    found: int
    used: int


def side_table(run: RunResults, folder: SideFolder) -> SideTable | None:
    """Return a view over ``RUN/<folder>/*.parquet``, or None where there is nothing that can be read."""
    files = sorted(str(file) for file in (run.path / folder).glob("*.parquet") if not file.name.startswith((".", "_")))
    step = max(1, -(-len(files) // MAX_FILES))
    used = files[::step]
    if not used:
        return None
    try:
        run.connection.read_parquet(used, hive_partitioning=False).create_view(folder, replace=True)
    except duckdb.Error:  # damaged or from another version: the result rows do not need it
        return None
    return SideTable(view=folder, found=len(files), used=len(used))
