"""What workers stored beside the rows (plans, Fisher information, learning curves), as DuckDB views."""

from __future__ import annotations

from typing import Literal

from tinytrain_dist.reporting.runs import RunResults

Part = Literal["plans", "fisher", "curves"]


def part_view(run: RunResults, part: Part) -> str | None:
    """Create a view over ``RUN/<part>/*.parquet`` and return its name, or None where the run stored none."""
    files = [str(file) for file in run.folder.files(part)]
    if not files:
        return None
    view = f"stored_{part}"
    run.connection.read_parquet(files, hive_partitioning=False).create_view(view, replace=True)
    return view
