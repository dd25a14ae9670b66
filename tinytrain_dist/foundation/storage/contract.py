"""What every storage promises, and which paths may be named inside one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from tinytrain_dist.foundation.errors import StorageError, TinyTrainError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

TEMPORARY_SUFFIX = ".tmp"


class Storage(Protocol):
    """A folder on a local disk or in an object store.

    Paths are relative to the folder and joined by ``/``; folders need not be made. Every method raises
    ``StorageError`` naming the full location when the store refuses or does not answer. A storage can be pickled:
    only its location travels, credentials are read from the environment of the process that opens it.
    """

    @property
    def location(self) -> str:
        """Return the absolute path or the URI of the folder."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Store ``data`` under ``path``, whole or not at all and durably; what was there is replaced."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Store ``data`` like ``write`` if nothing is there; of any number of racing callers one gets true."""
        ...

    def read(self, path: str) -> bytes:
        """Return the bytes under ``path``; raises ``StorageError`` when there are none."""
        ...

    def read_if_there(self, path: str) -> bytes | None:
        """Return the bytes under ``path``, or None when there are none."""
        ...

    def names(self, folder: str = "") -> Iterator[str]:
        """Yield every path below ``folder`` at any depth, sorted, relative to the storage; no temporary files."""
        ...

    def size(self, path: str) -> int | None:
        """Return the number of bytes under ``path``, or None when nothing is there."""
        ...

    def remove(self, path: str) -> None:
        """Remove what is under ``path``; nothing happens when nothing is there."""
        ...

    def below(self, folder: str) -> Storage:
        """Return the storage of a folder inside this one."""
        ...

    def dataset_filesystem(self) -> tuple[FileSystem, str]:
        """Return an Arrow file system and this folder's path in it, for Parquet datasets."""
        ...

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """Return the bytes under ``path`` and the version to give to ``replace_if``; None when nothing is there."""
        ...

    def replace_if(self, path: str, data: bytes, *, version: str | None) -> str | None:
        """Store ``data`` if ``path`` still has ``version`` (None: if nothing is there).

        Returns the new version, or None when someone else was first. A version stands for the content: who must
        tell two equal contents apart puts a counter into them. Paths written this way are not to be given to
        ``write`` by anybody else, which asks nothing.
        """
        ...


def checked(path: str, *, location: str, error: type[TinyTrainError] = StorageError) -> str:
    """Return ``path`` if it stays inside its storage, else raise ``error``."""
    parts = path.split("/")
    if "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise error(f"{location}: {path!r} is no path inside a storage (relative, joined by /, no . or ..)")
    if is_temporary(parts[-1]):
        raise error(f"{location}: {path!r} is a name for temporary files; choose one that is not .*.tmp")
    return path


def is_temporary(name: str) -> bool:
    """Say whether ``name`` is that of a file whose writing was cut short."""
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)
