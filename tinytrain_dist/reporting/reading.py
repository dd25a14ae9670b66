"""Opens runs that are not as they should be (unfinished, one device, only failures), says so, shows what is there.

An unfinished run has no ``results/`` yet, but its manifest names the shards that are done. They are read in place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from tinytrain_dist.foundation.errors import ExitCode, StorageError
from tinytrain_dist.reporting.run_folder import RECORD, RESULTS, SHARDS, RunFolder, run_folder
from tinytrain_dist.reporting.runs import RunResults, open_run
from tinytrain_dist.simulation.manifest import Manifest

_LINKS: list[tempfile.TemporaryDirectory[str]] = []
"""Folders of links that live as long as the process: the views over them are read lazily."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """An opened run, what has to be said about it, and the exit code of a verb that shows it."""

    run: RunResults
    notes: list[str] = field(default_factory=list)
    exit_code: ExitCode = ExitCode.DONE


def read_run(location: str | Path) -> Reading:
    """Open a run for reading; one that is unfinished is opened with the tasks that are done.

    Raises
    ------
    StorageError
        There is no run, no row yet, or rows that cannot be read (damaged, or of a newer schema).
    """
    folder = run_folder(location)
    with folder.own_words():
        shards = _finished_shards(folder)
        run = open_run(folder) if shards is None else _open_shards(folder, shards)
    notes, code = [], ExitCode.DONE
    if shards is not None and run.record.get("status") == "finished":
        notes.append("NOTE: the run's result files are gone: shown is what its shards hold; the same command writes "
                     "the files again.")  # fmt: skip
        code = ExitCode.PARTIAL
    elif shards is not None:
        done = run.select("SELECT count(DISTINCT task_id) AS num FROM stored")[0]["num"]
        shown = f"{done}{_of_tasks(run)} tasks are done and shown"
        notes.append(f"NOTE: the run is unfinished: {shown}; the same command resumes it.")
        code = ExitCode.PARTIAL
    elif run.record.get("status") == "running":
        notes.append("NOTE: the run is being extended: shown is what it held when it was last finished.")
        code = ExitCode.PARTIAL
    elif run.record.get("status") == "stopped":
        notes.append("NOTE: the run stopped before its last task: shown is what it held then or, had it been finished "
                     "before, what it held then; the same command resumes it.")  # fmt: skip
        code = ExitCode.PARTIAL
    if run.absent_columns:
        notes.append(f"NOTE: the run's rows are older than the column {', '.join(run.absent_columns)}: whether prices "
                     "lie outside what was measured is not known.")  # fmt: skip
    found = run.select("SELECT count(*) FILTER (WHERE ok) AS ok, count(*) FILTER (WHERE failed) AS failed, "
                       "count(*) AS num, count(DISTINCT device) AS devices FROM rows")[0]  # fmt: skip
    if found["ok"] == found["failed"] == 0:
        notes.append("NOTE: no row holds a result: no method of the run is applicable to its network.")
    elif found["ok"] == 0 and found["failed"] < found["num"]:
        notes.append(f"NOTE: {found['failed']} of {found['num']} rows failed, and the methods of the others are not "
                     "applicable to the network: there is no accuracy and no price to compare.")  # fmt: skip
        code = ExitCode.TOO_MANY_FAILURES
    elif found["ok"] == 0:
        notes.append(f"NOTE: all {found['num']} rows failed: there is no accuracy and no price to compare.")
        code = ExitCode.TOO_MANY_FAILURES
    if found["devices"] == 1:
        notes.append("NOTE: the run has one device: there is nothing to compare between devices.")
    return Reading(run=run, notes=notes, exit_code=code)


def worst(readings: Sequence[Reading]) -> ExitCode:
    """Return the exit code of several runs shown together."""
    return max((reading.exit_code for reading in readings), default=ExitCode.DONE)


@contextmanager
def vanishing_storage() -> Iterator[None]:
    """Turn files that disappear or break while they are read into a ``StorageError``."""
    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException, pa.ArrowException, OSError) as exc:
        raise StorageError(f"the run's files cannot be read any more: {str(exc).splitlines()[0]}") from exc


def _of_tasks(run: RunResults) -> str:
    grid = run.record.get("grid")
    if not isinstance(grid, dict) or not isinstance(grid.get("num_tasks"), int):
        return ""
    return f" of {grid['num_tasks'] * len(grid.get('domains', ()))}"


def _finished_shards(folder: RunFolder) -> list[Path] | None:
    """Return the shards of an unfinished run that its manifest counts; None where there are results, or no shard.

    Raises ``StorageError`` where some of their rows no longer count: they are sorted out when the run is finished.
    """
    if folder.files(RESULTS):
        return None
    manifest = Manifest(folder.storage).open()
    if any("void" in event for _, event in manifest.events()):
        raise StorageError(f"{folder.location}: unfinished, and rows of it were priced again; finish it to see them")
    names = {record.rows_file for _, record in manifest.records()}
    found = [path for path in folder.files(SHARDS) if path.relative_to(folder.path).as_posix() in names]
    return found or None


def _open_shards(folder: RunFolder, shards: list[Path]) -> RunResults:
    """Open the shards as if they were the results: a folder of links that has the layout of a finished run."""
    links = tempfile.TemporaryDirectory(prefix="tinytrain-unfinished-")
    _LINKS.append(links)
    view = Path(links.name)
    try:
        (view / RESULTS).mkdir()
        (view / RECORD).symlink_to(folder.path / RECORD)
        for shard in shards:
            (view / RESULTS / shard.name).symlink_to(shard)
    except OSError as exc:
        raise StorageError(f"{view}: cannot be written: {exc.strerror or exc}") from exc
    try:
        return replace(open_run(view), path=folder.path, folder=folder)
    except StorageError as error:
        raise StorageError(str(error).replace(str(view / RESULTS), str(folder.path / SHARDS))) from error
