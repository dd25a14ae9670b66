"""Where a run's files can be read: its own folder on a local disk, or a temporary copy of what an object store holds.

A page asks its results dozens of questions. From an object store each file is therefore fetched once, through Arrow,
into a temporary folder that goes with the opened run; what is made there is brought back by ``publish``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow.fs import FileSystem

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.storage import Storage, open_storage
from tinytrain_dist.foundation.storage.local import LocalStorage

RECORD, MANIFEST, RESULTS, SHARDS = "run.json", "manifest.json", "results", "shards"
_MAX_FETCHES = 8
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run's files at ``path``, which is its ``storage`` itself or a copy of it that lives as long as this value."""

    path: Path
    storage: Storage
    copy: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    @property
    def location(self) -> str:
        """Return the path or URI the run is known by."""
        return self.storage.location

    def files(self, folder: str) -> list[Path]:
        """Return the Parquet files at any depth below ``folder``, sorted; fetched if they are not here yet."""
        if self.copy is not None and not (self.path / folder).exists():
            self._fetch(folder)
        found = (self.path / folder).rglob("*.parquet")
        return sorted(file for file in found if file.is_file() and not file.name.startswith((".", "_")))

    def publish(self, made: Path) -> str:
        """Bring a file or folder made below ``path`` to the storage, and return its location there."""
        name = made.relative_to(self.path).as_posix()
        if self.copy is None:
            return str(made)
        for file in sorted(made.rglob("*")) if made.is_dir() else [made]:
            if file.is_file():
                self.storage.write(file.relative_to(self.path).as_posix(), file.read_bytes())
        return f"{self.location}/{name}"

    @contextmanager
    def own_words(self) -> Iterator[None]:
        """Let errors inside name the run's location instead of that of the copy."""
        try:
            yield
        except StorageError as error:
            if self.copy is None:
                raise
            raise StorageError(str(error).replace(str(self.path), self.location)) from error

    def _fetch(self, folder: str) -> None:
        names = [name for name in self.storage.names(folder) if name.endswith(".parquet")]
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".fetched-") as fetched:
            try:
                filesystem, root = self.storage.dataset_filesystem()
                with ThreadPoolExecutor(_MAX_FETCHES) as pool:
                    list(pool.map(lambda name: _copy(filesystem, f"{root}/{name}", Path(fetched, name)), names))
            except (OSError, pa.ArrowException) as error:
                reason = str(error).splitlines()[0]
                raise StorageError(f"{self.location}/{folder}: cannot be read: {reason}") from error
            Path(fetched, folder).mkdir(parents=True, exist_ok=True)
            Path(fetched, folder).rename(self.path / folder)  # whole or not at all


def _copy(filesystem: FileSystem, source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with filesystem.open_input_stream(source) as stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file, _PIECE_BYTES)


def run_folder(location: str | Path) -> RunFolder:
    """Return where the run at a path or URI can be read.

    Of a run in an object store the record, the manifest and the results are fetched (of one without results the
    shards). Raises ``StorageError`` when the service cannot be read or holds no run there, ``ConfigError`` for an
    unknown scheme.
    """
    storage = open_storage(location)
    if isinstance(storage, LocalStorage):
        return RunFolder(path=Path(storage.location), storage=storage)
    copy = tempfile.TemporaryDirectory(prefix="tinytrain-run-")
    folder = RunFolder(path=Path(copy.name), storage=storage, copy=copy)
    found = {name: storage.read_if_there(name) for name in (RECORD, MANIFEST)}
    if found[RECORD] is None:
        raise StorageError(f"{storage.location}: no such run (it has no {RECORD})")
    for name, data in found.items():
        if data is not None:
            (folder.path / name).write_bytes(data)
    if not folder.files(RESULTS):
        folder.files(SHARDS)
    return folder
