"""Where things lie: resources of the project, names that are safe as file names, atomic writes."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinytrain_dist.foundation.errors import ConfigError, StorageError, TinyTrainError

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


def resource_folder(name: str) -> Path:
    """Return the folder ``conf`` or ``device_profiles``: the installed copy, else (there is none) the checkout's own.

    In this order, since beside an installed package another one's folder of that name may lie.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "_resources" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise StorageError(f"the folder {name!r} is missing from this installation; reinstall tinytrain-dist")


def check_name(name: str, *, what: str, error: type[TinyTrainError] = ConfigError) -> str:
    """Return ``name`` if it is safe as a file name (no separators, no leading dot), else raise."""
    if not _SAFE_NAME.fullmatch(name) or ".." in name:
        raise error(f"{what} {name!r}: only letters, digits and . _ + - are allowed, starting with a letter or digit")
    return name


def inside(folder: Path, name: str, *, what: str, error: type[TinyTrainError] = ConfigError) -> Path:
    """Return ``folder/name`` and refuse a link that leads out of ``folder``."""
    path = folder / check_name(name, what=what, error=error)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise error(f"{what} {name!r}: leads out of {folder}")
    return path


def local_path(location: str, *, what: str) -> Path:
    """Return an absolute local path; URIs of other storage are refused by name."""
    if "://" in location:
        scheme, rest = location.split("://", 1)
        if scheme != "file":
            raise StorageError(f"{what} {location!r}: storage scheme {scheme!r} is unknown; allowed: a path or file://")
        location = rest
    return Path(location).expanduser().resolve()


def make_folder(path: Path) -> Path:
    """Create ``path`` and its parents; raises ``StorageError`` naming it when that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageError(f"{path}: cannot be created: {exc.strerror or exc}") from exc
    return path


def atomic_write(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old or the new file, never half of one."""
    with _written(path, data) as temporary:
        temporary.replace(path)


def atomic_create(path: Path, data: bytes) -> bool:
    """Write ``data`` to ``path`` if nothing is there; of any number of racing callers one gets true."""
    with _written(path, data) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
    return True


@contextmanager
def _written(path: Path, data: bytes) -> Iterator[Path]:
    """Hold ``data`` in a durable temporary file beside ``path``; what is done with it is made durable too."""
    try:
        _make_durable_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        # not mkstemp: its files are the owner's alone, while those of a run are for whom the umask lets read them
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as exc:
        raise StorageError(f"{path}: cannot be written: {exc.strerror or exc}") from exc


def _make_durable_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_durable_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
