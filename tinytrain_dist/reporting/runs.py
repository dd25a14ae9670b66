"""Opens a run directory: its record (run.json) and its result rows, as DuckDB views over Parquet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.redaction import redact
from tinytrain_dist.reporting import views
from tinytrain_dist.reporting.run_folder import RECORD, RESULTS, RunFolder, run_folder
from tinytrain_dist.simulation.schema import COLUMNS, KEY_COLUMNS, SCHEMA_VERSION, SINCE


@dataclass(frozen=True)
class RunResults:
    """One run, read-only. ``record`` is run.json with every secret replaced.

    The connection offers the views described in ``views.py``; nothing is loaded into memory as a whole. ``path`` is
    a local folder with the run's files; ``folder.location`` is where the run is. ``absent_columns``: null in every row,
    since the rows were written before there was such a column.
    """

    path: Path
    folder: RunFolder = field(repr=False)
    record: dict[str, Any]
    num_rows: int
    connection: duckdb.DuckDBPyConnection = field(repr=False)
    absent_columns: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """Return the run's id, or its folder's name where run.json has none."""
        return str(self.record.get("run_id") or self.location.rpartition("/")[2])

    @property
    def location(self) -> str:
        """Return the path or URI the run was opened at."""
        return self.folder.location

    @property
    def config(self) -> dict[str, Any]:
        """Return the resolved configuration the run was made with (redacted)."""
        found = self.record.get("config")
        return found if isinstance(found, dict) else {}

    def select(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of one query as dictionaries."""
        cursor = self.connection.execute(sql, list(parameters))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]

    def result_files(self) -> list[Path]:
        """Return the Parquet files of the result dataset, sorted."""
        return self.folder.files(RESULTS)


def open_run(location: str | Path | RunFolder) -> RunResults:
    """Open a run directory (a path, a URI, or one already at hand) for reading.

    Raises
    ------
    StorageError
        The folder or run.json is missing or damaged, there are no result rows, a result file is damaged,
        lacks columns or was written by a newer version, or two rows have the same key; an object store that
        cannot be read.
    """
    folder = location if isinstance(location, RunFolder) else run_folder(location)
    with folder.own_words():
        return _open(folder)


def _open(folder: RunFolder) -> RunResults:
    path = folder.path
    record = _read_record(path)
    files = folder.files(RESULTS)
    if not files:
        raise StorageError(f"{path / RESULTS}: no result files; the run has produced no rows yet")
    num_rows = sum(_check_file(file) for file in files)
    if num_rows == 0:
        raise StorageError(f"{path / RESULTS}: {len(files)} result files without a single row")
    connection = duckdb.connect(config={"temp_directory": tempfile.gettempdir()})
    absent = view_of_files(connection, files)
    run = RunResults(
        path=path, folder=folder, record=record, num_rows=num_rows, connection=connection, absent_columns=absent
    )
    _check_keys(run)
    views.create(connection)
    return run


def newest_run(root: str | Path) -> Path:
    """Return the run in ``root`` whose results were completed last; raises ``StorageError`` when there is none."""
    finished = [path for path in Path(root).glob("*/_SUCCESS") if (path.parent / "results").is_dir()]
    if not finished:
        raise StorageError(f"{Path(root).resolve()}: holds no finished run; name a run directory")
    return max(finished, key=lambda path: path.stat().st_mtime).parent


def view_of_files(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> tuple[str, ...]:
    """Create the view ``stored`` over result files, with every column, and return those no file has."""
    mixed = any(name not in pq.read_schema(file).names for file in files for name in SINCE)
    relation = connection.read_parquet([str(file) for file in files], hive_partitioning=False, union_by_name=mixed)
    absent = tuple(name for name in SINCE if name not in relation.columns)
    nulls = "".join(f", NULL::VARCHAR AS {name}" for name in absent)
    relation.project(f"*{nulls}").create_view("stored")
    return absent


def _read_record(path: Path) -> dict[str, Any]:
    file = path / RECORD
    if not path.is_dir():
        raise StorageError(f"{path}: no such run directory")
    if not file.is_file():
        raise StorageError(f"{path}: not a run directory (it has no {RECORD})")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise StorageError(f"{file}: cannot be read: {exc}") from exc
    if not isinstance(record, dict):
        raise StorageError(f"{file}: expected a JSON object, found {type(record).__name__}")
    identity = record.pop("identity", {})
    return {**redact(record), "identity": redact(identity, by_name=False)}


def _check_file(file: Path) -> int:
    """Return the number of rows of a result file; raises ``StorageError`` if it cannot be used."""
    try:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as exc:
        raise StorageError(f"{file}: damaged result file: {exc}") from exc
    version = (schema.metadata or {}).get(b"tinytrain_schema", b"").decode(errors="replace")
    if not version.isdigit():
        raise StorageError(f"{file}: no result file of this program (its schema version is missing)")
    if int(version) > SCHEMA_VERSION:
        raise StorageError(
            f"{file}: written with result schema {version}, this version reads up to {SCHEMA_VERSION}; update it"
        )
    missing = [c.name for c in COLUMNS if c.name not in schema.names and SINCE.get(c.name, 1) <= int(version)]
    if missing:
        raise StorageError(f"{file}: columns are missing: {', '.join(missing)}")
    return int(metadata.num_rows)


def _check_keys(run: RunResults) -> None:
    keys = ", ".join(KEY_COLUMNS)
    try:
        doubled = run.select(f"SELECT {keys} FROM stored GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 1")
    except duckdb.Error as exc:
        raise StorageError(f"{run.path / RESULTS}: cannot be read: {exc}") from exc
    if doubled:
        raise StorageError(f"{run.path / RESULTS}: two rows have the same key {doubled[0]}; averages would be wrong")
