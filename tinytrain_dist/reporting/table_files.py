"""Rows as CSV that a spreadsheet cannot be tricked by, as Parquet, or as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.foundation.paths import atomic_write

Format = Literal["csv", "parquet", "json"]
FORMATS: tuple[Format, ...] = ("csv", "parquet", "json")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
Rows = Sequence[Mapping[str, Any]]


def csv_cell(value: object) -> object:
    """Return ``value``; text that a spreadsheet would run as a formula gets a leading apostrophe.

    Numbers stay numbers, negative ones too.
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA_STARTS) else value


def csv_text(rows: Rows) -> str:
    """Return one line per row under the names of the fields, in plain units, empty cells for None."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    names = field_names(rows)
    writer.writerow(csv_cell(name) for name in names)
    for row in rows:
        writer.writerow(csv_cell(row.get(name)) for name in names)
    return out.getvalue()


def arrow_table(rows: Rows) -> pa.Table:
    """Return the rows as an Arrow table; a column without a single value is of type null."""
    names = field_names(rows)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def field_names(rows: Rows) -> list[str]:
    """Return the names of all fields, in the order they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def write_rows(rows: Rows, path: Path, form: Format) -> None:
    """Write the rows to ``path``; raises ``StorageError`` where that fails."""
    if form == "parquet":
        out = io.BytesIO()
        pq.write_table(arrow_table(rows), out)
        atomic_write(path, out.getvalue())
        return
    text = csv_text(rows) if form == "csv" else json.dumps(list(rows), indent=2, allow_nan=False) + "\n"
    atomic_write(path, text.encode())
