"""Listens to a training and keeps what its curves do not hold: how fast each round was on this machine."""

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
_SCHEMA = pa.schema([pa.field("round", pa.int32()), pa.field("slots_per_second", pa.float64())])
_RATE = "/slots_per_second"
_LOG = logger(__name__)


class TrainingLog:
    """A run logger that remembers the rate of every round; a slot is an episode, or a batch of a pre-training."""

    def __init__(self) -> None:
        self.rates: dict[int, float] = {}

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Keep the rate among ``values``."""
        for name, value in values.items():
            if name.endswith(_RATE):
                self.rates[step] = value

    def note(self, message: str) -> None:
        """Notes are for those who watch."""

    def save(self, folder: Path) -> None:
        """Add the rates to those of earlier calls in ``folder``; what cannot be written is only logged."""
        rates = read_speed(folder) | self.rates
        table = pa.table({"round": list(rates), "slots_per_second": list(rates.values())}, schema=_SCHEMA)
        sink = io.BytesIO()
        pq.write_table(table.sort_by("round"), sink)
        try:
            atomic_write(folder / SPEED_FILE, sink.getvalue())
        except StorageError as exc:  # a listener cannot fail a run
            _LOG.warning("the rates of the rounds are not kept: %s", exc)


def read_speed(folder: Path) -> dict[int, float]:
    """Return slots per second by round; empty where none were kept."""
    try:
        table = pq.read_table(folder / SPEED_FILE, schema=_SCHEMA)
    except (OSError, pa.ArrowException):
        return {}
    return dict(zip(table["round"].to_pylist(), table["slots_per_second"].to_pylist(), strict=True))
