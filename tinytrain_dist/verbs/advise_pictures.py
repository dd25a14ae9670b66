"""A folder of the user's own pictures -> a domain below the run root, named by its content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.image_table import ImageTable
from tinytrain_dist.data.importing import import_domain
from tinytrain_dist.data.sources import SOURCES
from tinytrain_dist.foundation.errors import DataError
from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.paths import make_folder
from tinytrain_dist.reporting.formatting import one_line

FORMAT = "image_folder"
DOMAINS = "domains"
"""Folder below the run root that keeps what was imported."""
_MAX_DEPTH = 3
"""Split folder, class folder, picture: nothing deeper is read."""
_MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The imported domain.

    Attributes
    ----------
    name
        ``pictures-`` and the hash of classes and pictures: the same folder content has the same name everywhere.
    root
        Folder the domain lies in.
    class_sizes
        Pictures per class.
    notes
        What was left out or is doubtful, one line each.
    """

    name: str
    root: Path
    class_sizes: tuple[int, ...]
    notes: tuple[str, ...]


def read_pictures(folder: Path) -> ImageTable:
    """Return the pictures of a folder with a subfolder per class, undecoded.

    Raises
    ------
    DataError
        No such folder, no picture in it, or a link that leads out of it.
    """
    if not folder.is_dir():
        raise DataError(f"IMAGES {str(folder)!r}: no such folder; allowed: one with a folder of pictures per class")
    _refuse_links_out(folder)
    return SOURCES[FORMAT].read(folder)


def import_pictures(folder: Path, table: ImageTable, *, run_root: Path) -> Pictures:
    """Write the pictures below ``run_root``, or find them there; raises ``DataError`` for unusable ones."""
    name, root = f"pictures-{table.content_hash()}", make_folder(run_root / DOMAINS)
    file = root / f"{name}.parquet"
    if not _is_there(file, table):
        file.unlink(missing_ok=True)  # a damaged file: what it should hold is known from its name
        import_domain(folder, format=FORMAT, out=root, name=name)
    notes = tuple(one_line(note) for note in (*table.notes, *_doubles(table)))
    counts = Counter(table.labels.tolist())
    sizes = tuple(counts[label] for label in range(len(table.class_names)))
    return Pictures(name=name, root=root, class_sizes=sizes, notes=notes)


def _is_there(file: Path, table: ImageTable) -> bool:
    try:
        return file.is_file() and not file.is_symlink() and open_domain(file).content_hash == table.content_hash()
    except DataError:
        return False


def _refuse_links_out(folder: Path) -> None:
    home = folder.resolve()
    out = [path for path in _entries(folder, _MAX_DEPTH) if path.is_symlink() and not _leads_inside(path, home)]
    if out:
        named = "; ".join(repr(path.relative_to(folder).as_posix()) for path in out[:_MAX_NAMED])
        raise DataError(f"{folder}: links that lead out of the folder: {len(out)}: {named}; copy what they point to")


def _entries(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as exc:
        raise DataError(f"{folder}: cannot be read: {exc.strerror or exc}") from exc
    for entry in entries:
        yield entry
        if depth > 1 and entry.is_dir() and not entry.is_symlink():
            yield from _entries(entry, depth - 1)


def _leads_inside(path: Path, home: Path) -> bool:
    try:
        return path.resolve().is_relative_to(home)
    except (OSError, RuntimeError):  # a link to itself
        return False


def _doubles(table: ImageTable) -> list[str]:
    """Return a warning where a file stands twice: a task would learn from what it is judged on."""
    seen = Counter(bytes_hash(table.encoded(row)) for row in range(len(table)))
    copies = sum(count - 1 for count in seen.values())
    if not copies:
        return []
    return [
        f"{copies} of {len(table)} pictures are copies of another one, byte for byte: a task may learn from a picture "
        "it is judged on (accuracy too high) or find one picture in two classes; remove the copies"
    ]
