"""The comparison as CSV that a spreadsheet cannot be tricked by."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.reporting.comparison import ComparisonRow

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_cell(value: object) -> object:
    """Return ``value``; text that a spreadsheet would run as a formula gets a leading apostrophe.

    Numbers stay numbers, negative ones too.
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA_STARTS) else value


def write_csv(rows: Sequence[ComparisonRow], path: Path) -> None:
    """Write one line per row, all fields in plain units, empty cells for None."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(field.name for field in dataclasses.fields(ComparisonRow))
    for row in rows:
        writer.writerow(csv_cell(value) for value in dataclasses.astuple(row))
    atomic_write(path, out.getvalue().encode())
