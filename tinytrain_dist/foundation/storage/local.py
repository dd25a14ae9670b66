"""A folder on a local (or mounted) disk: temporary file, fsync, rename or hard link, fsync of the folder."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.paths import atomic_create, atomic_write, make_folder
from tinytrain_dist.foundation.storage.contract import checked, is_temporary

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR}


@dataclass(frozen=True)
class LocalStorage:
    """A ``Storage`` in the folder ``location`` (an absolute path; made when first written to)."""

    location: str

    def write(self, path: str, data: bytes) -> None:
        """See ``Storage.write``."""
        atomic_write(self._path(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """See ``Storage.create``."""
        return atomic_create(self._path(path), data)

    def read(self, path: str) -> bytes:
        """See ``Storage.read``."""
        found = self.read_if_there(path)
        if found is None:
            raise StorageError(f"{self._path(path)}: no such file")
        return found

    def read_if_there(self, path: str) -> bytes | None:
        """See ``Storage.read_if_there``."""
        with _named(self._path(path), "read") as file:
            try:
                return file.read_bytes()
            except OSError as error:
                if error.errno in _NOTHING_THERE:
                    return None
                raise

    def names(self, folder: str = "") -> Iterator[str]:
        """See ``Storage.names``."""
        start = self._path(folder) if folder else Path(self.location)
        yield from _files(start, f"{folder}/" if folder else "")

    def size(self, path: str) -> int | None:
        """See ``Storage.size``."""
        with _named(self._path(path), "looked at") as file:
            return file.stat().st_size if file.is_file() else None

    def remove(self, path: str) -> None:
        """See ``Storage.remove``."""
        with _named(self._path(path), "removed") as file:
            try:
                file.unlink()
            except OSError as error:
                if error.errno not in _NOTHING_THERE:
                    raise

    def below(self, folder: str) -> LocalStorage:
        """See ``Storage.below``."""
        return LocalStorage(str(self._path(folder)))

    def dataset_filesystem(self) -> tuple[FileSystem, str]:
        """See ``Storage.dataset_filesystem``."""
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), self.location

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """See ``Storage.read_version``."""
        found = self.read_if_there(path)
        return None if found is None else (found, bytes_hash(found))

    def replace_if(self, path: str, data: bytes, *, version: str | None) -> str | None:
        """See ``Storage.replace_if``: compared and renamed while the kernel's lock on the folder is held."""
        if version is None:
            return bytes_hash(data) if self.create(path, data) else None
        with _locked(self._path(path).parent):
            found = self.read_version(path)
            if found is None or found[1] != version:
                return None
            self.write(path, data)
        return bytes_hash(data)

    def _path(self, path: str) -> Path:
        return Path(self.location, checked(path, location=self.location))


@contextmanager
def _named(file: Path, done: str) -> Iterator[Path]:
    try:
        yield file
    except OSError as error:
        raise StorageError(f"{file}: cannot be {done}: {error.strerror or error}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _named(make_folder(folder), "locked"):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _files(folder: Path, prefix: str) -> Iterator[str]:
    """Yield the files below ``folder`` in the order of their whole paths (as an object store lists them)."""
    with _named(folder, "listed"):
        try:
            with os.scandir(folder) as entries:
                found = sorted((entry.name + "/" * entry.is_dir(), entry.name) for entry in entries)
        except OSError as error:
            if error.errno in _NOTHING_THERE:
                return
            raise
    for key, name in found:
        if key.endswith("/"):
            yield from _files(folder / name, prefix + key)
        elif not is_temporary(name):
            yield prefix + name
