"""The file of rows: one row per case, whole or absent; the same command adds what is missing."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinytrain_dist.costs.measurements import OPERATION_COLUMNS, SETTING_COLUMNS, read_measurements
from tinytrain_dist.costs.phase_amounts import FURTHER
from tinytrain_dist.foundation.errors import ProfileError
from tinytrain_dist.foundation.paths import atomic_write

COLUMNS = (
    *SETTING_COLUMNS, "power_mode", "phase", "model", "family", "resolution", *OPERATION_COLUMNS, *FURTHER,
    "latency_ms", "energy_mj", "active_power_w", "batch", "spread", "rounds", "median_ms", "reference_ms",
    "quiet_reference_ms", "timer", "clock_hz", "governor", "status", "source",
)  # fmt: skip
SAME_COLUMNS = (*SETTING_COLUMNS, "power_mode", "batch", "timer", "quiet_reference_ms")
"""What all rows of one file share: it is one measurement of one setting."""

Row = Mapping[str, str]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file this program wrote; empty where there is no file yet.

    Raises
    ------
    ProfileError
        A file that was cut off or edited (another header, a row too short, a cell that is no number), or rows of
        different settings; names file and line.
    """
    if not path.exists():
        return []
    text = _text(path)
    if not text.endswith("\n"):
        raise ProfileError(f"{path}: the last row is cut off; delete that line, and the same command measures it again")
    reader = csv.DictReader(io.StringIO(text), strict=True)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ProfileError(
            f"{path}: is no file of 'tinytrain measure': its header is not {', '.join(COLUMNS[:3])}, ..."
        )
    rows = [_checked(path, reader.line_num, row) for row in reader]
    if rows:
        read_measurements(path)
    for column in SAME_COLUMNS:
        found = sorted({row[column] for row in rows})
        if len(found) > 1:
            raise ProfileError(f"{path}: column {column!r} holds {', '.join(found[:3])}; allowed: one value in a file")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ProfileError(f"{path}: cannot be read: {exc}") from exc


def _checked(path: Path, line: int, row: dict[str | None, str | None]) -> dict[str, str]:
    cells = {str(key): value for key, value in row.items() if key is not None and value is not None}
    if len(cells) != len(COLUMNS) or None in row:
        raise ProfileError(
            f"{path}, line {line}: {len(cells)} cells; allowed: {len(COLUMNS)}; delete that line, and the same "
            "command measures it again"
        )
    return cells


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write all ``rows``; a reader sees the old or the new file, never half a row."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, stream.getvalue().encode())


def cell(value: float | int | str | None, *, digits: int = 6) -> str:
    """Return a cell's text; empty where there is nothing."""
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
