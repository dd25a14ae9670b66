"""What a page reads of the files beside the rows: a bounded, fair sample, and nothing where they are damaged."""

from __future__ import annotations

import duckdb

from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.stored_parts import Part

MAX_FILES = 4000
"""So many files of a part a page reads: opening each takes a millisecond, and a run of small chunks has one each."""


def sampled_part(run: RunResults, part: Part) -> str | None:
    """Create a view over at most ``MAX_FILES`` files of ``RUN/<part>``, evenly spaced, and return its name.

    Files are named after hashes, so such a sample is a fair one. None where the run stored none, or what it stored
    cannot be read: the page has everything else to show.
    """
    files = [str(file) for file in run.folder.files(part)]
    step = max(1, -(-len(files) // MAX_FILES))
    if not files:
        return None
    view = f"sampled_{part}"
    try:
        run.connection.read_parquet(files[::step], hive_partitioning=False).create_view(view, replace=True)
    except duckdb.Error:
        return None
    return view
