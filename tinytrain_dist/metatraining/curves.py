"""The curves of a meta-training: one row per round, in ``curves.parquet``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.paths import atomic_write

_SCHEMA = pa.schema(
    [
        pa.field("round", pa.int32(), nullable=False),
        pa.field("loss", pa.float64(), nullable=False),
        pa.field("accuracy", pa.float64(), nullable=False),
        pa.field("learning_rate", pa.float64(), nullable=False),
        pa.field("head_scale", pa.float64(), nullable=False),
        pa.field("validation_accuracy", pa.map_(pa.string(), pa.float64())),
    ]
)


class CurveRow(TypedDict):
    """One round: means over its episodes; ``validation_accuracy`` per domain, None where none was made."""

    round: int
    loss: float
    accuracy: float
    learning_rate: float
    head_scale: float
    validation_accuracy: dict[str, float] | None


def write_curves(path: Path, rows: Sequence[CurveRow]) -> None:
    """Write all rows, at once or not at all."""
    plain = [{**row, "validation_accuracy": _pairs(row["validation_accuracy"])} for row in rows]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(plain, schema=_SCHEMA), sink)
    atomic_write(path, sink.getvalue())


def read_curves(path: Path) -> list[CurveRow]:
    """Return the rows; empty if the file is not there. Raises ``StorageError`` if it is damaged."""
    if not path.exists():
        return []
    try:
        rows = pq.read_table(path, schema=_SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    return [_row(row) for row in rows]


def _row(values: dict[str, Any]) -> CurveRow:
    pairs = values["validation_accuracy"]
    return CurveRow(
        round=values["round"],
        loss=values["loss"],
        accuracy=values["accuracy"],
        learning_rate=values["learning_rate"],
        head_scale=values["head_scale"],
        validation_accuracy=None if pairs is None else dict(pairs),
    )


def _pairs(values: dict[str, float] | None) -> list[tuple[str, float]] | None:
    return None if values is None else list(values.items())
