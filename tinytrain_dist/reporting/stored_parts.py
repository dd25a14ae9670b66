"""What workers stored beside the rows (plans, Fisher information, learning curves), as DuckDB views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.reporting.runs import RunResults

Part = Literal["plans", "fisher", "curves"]
Key = TypeVar("Key")
Values = TypeVar("Values", Sequence[float], NDArray[np.float64])


def finite(deltas: Mapping[Key, Mapping[int, Values]]) -> dict[Key, Mapping[int, Values]]:
    """Return the tasks whose Fisher information, layer -> Delta per channel, is finite: what others hold ranks nothing.

    Runs of earlier versions may hold others.
    """
    return {key: layers for key, layers in deltas.items() if all(np.isfinite(delta).all() for delta in layers.values())}


def part_view(run: RunResults, part: Part) -> str | None:
    """Create a view over ``RUN/<part>/*.parquet`` and return its name, or None where the run stored none."""
    files = [str(file) for file in run.folder.files(part)]
    if not files:
        return None
    view = f"stored_{part}"
    run.connection.read_parquet(files, hive_partitioning=False).create_view(view, replace=True)
    return view
