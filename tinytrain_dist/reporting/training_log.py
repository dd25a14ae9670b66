"""Listens to a training and keeps what its curves do not hold: how fast each round was, where its time went, and how
sure each validation is."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.paths import atomic_write

SPEED_FILE = "speed.parquet"
_SCHEMA = pa.schema(
    [
        pa.field("round", pa.int32()),
        pa.field("slots_per_second", pa.float64()),
        pa.field("figures", pa.map_(pa.string(), pa.float64())),
    ]
)
RATE = "slots_per_second"
_KEPT = (RATE, "seconds_on_workers", "seconds_of_step", "seconds_of_validation", "validation_half_width/")
_LOG = logger(__name__)


class TrainingLog:
    """A run logger that remembers figures of every round; a slot is an episode, or a batch of a pre-training."""

    def __init__(self) -> None:
        self.figures: dict[int, dict[str, float]] = {}

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Keep rate, times and half widths among ``values``, named without the stage in front."""
        for name, value in values.items():
            if (short := name.partition("/")[2]).startswith(_KEPT):
                self.figures.setdefault(step, {})[short] = value

    def note(self, message: str) -> None:
        """Notes are for those who watch."""

    def save(self, folder: Path) -> None:
        """Add the figures to those of earlier calls in ``folder``; what cannot be written is only logged."""
        found = read_figures(folder) | self.figures
        columns = {
            "round": list(found),
            "slots_per_second": [own.get(RATE) for own in found.values()],
            "figures": [list(own.items()) for own in found.values()],
        }
        table = pa.table(columns, schema=_SCHEMA)
        sink = io.BytesIO()
        pq.write_table(table.sort_by("round"), sink)
        try:
            atomic_write(folder / SPEED_FILE, sink.getvalue())
        except StorageError as exc:  # a listener cannot fail a run
            _LOG.warning("the rates and times of the rounds are not kept: %s", exc)


def read_speed(folder: Path) -> dict[int, float]:
    """Return slots per second by round; empty where none were kept."""
    return {number: own[RATE] for number, own in read_figures(folder).items() if RATE in own}


def read_figures(folder: Path) -> dict[int, dict[str, float]]:
    """Return everything that was kept of each round; empty where nothing was."""
    try:
        rows = pq.read_table(folder / SPEED_FILE, schema=_SCHEMA).to_pylist()
    except (OSError, pa.ArrowException):
        return {}
    return {row["round"]: ({} if row[RATE] is None else {RATE: row[RATE]}) | dict(row["figures"] or ()) for row in rows}
