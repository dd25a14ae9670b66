"""What workers stored beside the rows (plans, Fisher information, learning curves), as DuckDB views."""

from __future__ import annotations

from typing import Literal

import duckdb

from tinytrain_dist.reporting.runs import RunResults

Part = Literal["plans", "fisher", "curves"]
MAX_PAGE_FILES = 4000
"""So many files of a part a page reads: opening each takes about a millisecond."""


def part_view(run: RunResults, part: Part, *, max_files: int | None = None) -> str | None:
    """Create a view over ``RUN/<part>/*.parquet`` and return its name, or None where the run stored none.

    Parameters
    ----------
    max_files
        Read at most so many, evenly spaced: a run of many small chunks has a file per chunk, and as files are named
        after hashes such a sample is a fair one. None: all.
    """
    files = [str(file) for file in run.folder.files(part)]
    if not files:
        return None
    step = 1 if max_files is None else max(1, -(-len(files) // max_files))
    view = f"stored_{part}"
    run.connection.read_parquet(files[::step], hive_partitioning=False).create_view(view, replace=True)
    return view


def readable_part(run: RunResults, part: Part) -> str | None:
    """Return the view over a part for a page: of bounded size, and None where its files are damaged."""
    try:
        return part_view(run, part, max_files=MAX_PAGE_FILES)
    except duckdb.Error:  # the page has everything else to show; `replay` and the planner say what is wrong
        return None
