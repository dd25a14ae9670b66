"""Shipped rows, and files of rows to break."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from tinytrain_dist.foundation.paths import resource_folder

INFERENCE = resource_folder("device_profiles") / "measurements" / "inference.csv"
TRAINING = resource_folder("device_profiles") / "measurements" / "training.csv"

Cells = dict[str, str]


def cells_of(path: Path = INFERENCE) -> list[Cells]:
    """Return the rows of a CSV as texts."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_cells(path: Path, rows: Iterable[Cells]) -> Path:
    """Write rows of texts as CSV; the first row names the columns."""
    rows = list(rows)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def board_rows(name: str, *, profile: str, threads: str = "1", accelerator: str = "cpu") -> list[Cells]:
    """Return the rows of one setting of ``profile``, renamed to device ``name``."""
    wanted = {"profile": profile, "threads": threads, "accelerator": accelerator}
    found = [row for row in cells_of() if all(row[key] == value for key, value in wanted.items())]
    return [row | {"profile": name, "board": name} for row in found]
