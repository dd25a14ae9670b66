"""A run in a notebook: rows as Arrow, tables as Arrow, figures as Plotly; nothing is computed again.

import tinytrain_dist
run = tinytrain_dist.open_run("runs/simulate-4d0c4468dc")
frame = run.compare(by="device").to_pandas()  # needs pandas
run.figure("accuracy").show()
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.figures import FIGURES
from tinytrain_dist.reporting.intervals import IntervalKind
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.notices import notices
from tinytrain_dist.reporting.planner import Document, answer
from tinytrain_dist.reporting.questions import Questions, what_if_question
from tinytrain_dist.reporting.reading import read_run, vanishing_storage
from tinytrain_dist.reporting.table_files import arrow_table

if TYPE_CHECKING:
    import plotly.graph_objects as go

NO_LIMITS = Limits()


class Run:
    """One run, read-only.

    Attributes
    ----------
    notes
        What has to be said about the run: unfinished, of one device, with only failures.
    """

    def __init__(self, location: str | Path) -> None:
        reading = read_run(location)
        self.notes: tuple[str, ...] = tuple(reading.notes)
        self._run = reading.run

    def __repr__(self) -> str:
        return f"Run({self._run.run_id!r}, {self._run.num_rows} rows)"

    @property
    def record(self) -> dict[str, Any]:
        """Return ``run.json`` without secrets: configuration, versions, identity."""
        return dict(self._run.record)

    def rows(self, columns: Sequence[str] = ()) -> pa.Table:
        """Return the result rows as stored (``docs/results.md``), all columns or some; ``.to_pandas()`` needs pandas.

        Raises
        ------
        ConfigError
            A column that is not there.
        """
        known = [row["column_name"] for row in self._run.select("DESCRIBE stored")]
        for name in columns:
            if name not in known:
                raise ConfigError(f"rows: unknown column {name!r}; {nearest(name, known)}")
        chosen = ", ".join(f'"{name}"' for name in columns) or "*"
        with vanishing_storage():
            return self._run.connection.sql(f"SELECT {chosen} FROM stored").to_arrow_table()

    def query(self, sql: str) -> pa.Table:
        """Return the answer of DuckDB's SQL over the views ``rows`` and ``paired`` (``reporting/views.py``).

        Raises
        ------
        ConfigError
            A text DuckDB does not take, with its own words.
        """
        with vanishing_storage():
            try:
                return self._run.connection.sql(sql).to_arrow_table()
            except (duckdb.ProgrammingError, duckdb.DataError) as error:
                raise ConfigError(f"query: {error}") from error

    def comparison(
        self, *, by: str = "device", interval: IntervalKind = "t", limits: Limits = NO_LIMITS
    ) -> list[ComparisonRow]:
        """Return the planner's table, as ``tinytrain compare`` prints it."""
        with vanishing_storage():
            return comparison_table(self._run, by=by, interval=interval, limits=limits)

    def compare(self, *, by: str = "device", interval: IntervalKind = "t", limits: Limits = NO_LIMITS) -> pa.Table:
        """Return the planner's table as an Arrow table, one row per line."""
        return arrow_table([row.to_dict() for row in self.comparison(by=by, interval=interval, limits=limits)])

    def plan(self, *, what_if: Sequence[str] = (), limits: Limits = NO_LIMITS) -> Document:
        """Return the planner's overview, as ``tinytrain plan --json``; ``what_if`` as on the command line."""
        question = what_if_question(what_if) if what_if else None
        with vanishing_storage():
            return answer(self._run, Questions(what_if=question, limits=limits))

    def figure(self, name: str = "accuracy", *, device: str | None = None) -> go.Figure:
        """Return a Plotly figure: ``accuracy``, ``gain`` or ``pareto``, of one device or of all.

        Raises
        ------
        ConfigError
            Unknown figure, or a device the run has no rows of.
        """
        if name not in FIGURES:
            raise ConfigError(f"figure: unknown {name!r}; {nearest(name, FIGURES)}")
        rows = self.comparison(by="device")
        devices = sorted({str(row.device) for row in rows if row.device is not None})
        if device is not None and device not in devices:
            raise ConfigError(f"figure: device {device!r} is not in the run; {nearest(device, devices)}")
        shown = [row for row in rows if device in (None, row.device) or row.device is None]
        return FIGURES[name](shown, [*self.notes, *notices(shown)])


def open_run(location: str | Path) -> Run:
    """Open a run directory (a path or URI); raises ``StorageError`` where nothing can be shown."""
    return Run(location)
