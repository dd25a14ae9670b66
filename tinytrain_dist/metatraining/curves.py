"""The curves of a meta-training: one row per round, in ``curves.parquet``."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypedDict

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
        pa.field("episode_accuracies", pa.map_(pa.string(), pa.list_(pa.float64()))),
    ]
)


_MAPS: tuple[Literal["validation_accuracy", "episode_accuracies"], ...] = ("validation_accuracy", "episode_accuracies")


class CurveRow(TypedDict):
    """One round: means over its episodes.

    ``validation_accuracy`` per domain, None where none was made. ``episode_accuracies`` holds the query accuracy of
    each training episode by domain; None where batches mix domains, and in files of versions that did not keep it.
    """

    round: int
    loss: float
    accuracy: float
    learning_rate: float
    head_scale: float
    validation_accuracy: dict[str, float] | None
    episode_accuracies: dict[str, list[float]] | None


def figures_of(row: CurveRow) -> dict[str, float]:
    """Return a round's figures by the names that listeners know them by; of several episodes of a domain the mean."""
    return {
        "loss": row["loss"], "accuracy": row["accuracy"], "learning_rate": row["learning_rate"],
        "head_scale": row["head_scale"],
        **{f"accuracy/{name}": fmean(values) for name, values in (row["episode_accuracies"] or {}).items()},
        **{f"validation_accuracy/{name}": value for name, value in (row["validation_accuracy"] or {}).items()},
    }  # fmt: skip


def write_curves(path: Path, rows: Sequence[CurveRow]) -> None:
    """Write all rows, at once or not at all."""
    plain = [{**row, **{name: _pairs(row[name]) for name in _MAPS}} for row in rows]
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
    validation, episodes = (None if values[name] is None else dict(values[name]) for name in _MAPS)
    return CurveRow(
        round=values["round"],
        loss=values["loss"],
        accuracy=values["accuracy"],
        learning_rate=values["learning_rate"],
        head_scale=values["head_scale"],
        validation_accuracy=validation,
        episode_accuracies=episodes,
    )


def _pairs(values: Mapping[str, Any] | None) -> list[tuple[str, Any]] | None:
    return None if values is None else list(values.items())
