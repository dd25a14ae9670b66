"""A domain: images of one kind with their classes, opened once per process and decoded lazily."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tinytrain_dist.data.image_table import SPLITS, ImageTable, Labels, Split
from tinytrain_dist.data.images import Pixels, decode, resized
from tinytrain_dist.data.sources import SOURCES, source_of
from tinytrain_dist.data.splits import BUNDLED, bundled_splits, split_shares
from tinytrain_dist.foundation.errors import ConfigError, DataError, nearest
from tinytrain_dist.foundation.paths import check_name, inside

SplitName = Literal["train", "valid", "test", "all"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)

CACHE_LIMIT_BYTES = 2 << 30
"""A domain whose pixels at one resolution exceed this is decoded anew at each use."""


class Domain:
    """Images with classes. Not meant to travel: send an ``EpisodeSpec`` and open the domain where it is used.

    Attributes
    ----------
    name
        Name of the domain.
    content_hash
        16 hex digits over classes, splits, labels and image bytes: the same on every machine.
    class_names, class_splits
        Per class id.
    superclasses
        Per class id (glyphs: the script), or None.
    labels
        int64 [num_images], class id.
    sources
        Where each image came from, [num_images].
    class_sizes
        int64 [num_classes], images per class.
    """

    def __init__(self, name: str, *, table: ImageTable) -> None:
        self.name, self.content_hash = name, table.content_hash()
        self.class_names, self.class_splits = table.class_names, table.class_splits
        self.superclasses, self.labels, self.sources = table.superclasses, table.labels, table.sources
        self.class_sizes = np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)
        self._by_class = np.split(np.argsort(self.labels, kind="stable"), np.cumsum(self.class_sizes)[:-1])
        self._table = table
        self._pixels: dict[int, tuple[Pixels, npt.NDArray[np.bool_]]] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def class_images(self, class_id: int) -> Labels:
        """Return the ascending image indices of a class, int64 [class size]."""
        return self._by_class[class_id]

    def classes(self, split: SplitName) -> tuple[int, ...]:
        """Return the ascending class ids of a split; ``all`` is every class."""
        if split not in SPLIT_NAMES:
            raise ConfigError(f"unknown split {split!r}; {nearest(str(split), SPLIT_NAMES)}")
        return tuple(i for i, own in enumerate(self.class_splits) if split in (own, "all"))

    def images(self, indices: npt.NDArray[np.int64], *, resolution: int) -> Pixels:
        """Return RGB pixels, uint8 [n, 3, resolution, resolution]; each image is decoded once per resolution.

        Raises
        ------
        DataError
            An image that cannot be decoded, with its row.
        """
        if len(self) * 3 * resolution**2 > CACHE_LIMIT_BYTES:
            return np.stack([self._decoded(i, resolution) for i in indices.tolist()])
        pixels, ready = self._cache(resolution)
        for index in indices[~ready[indices]].tolist():
            pixels[index] = self._decoded(index, resolution)
            ready[index] = True
        return pixels[indices]

    def _cache(self, resolution: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
        if resolution not in self._pixels:
            # untouched pages of an empty array take no memory
            pixels = np.empty((len(self), 3, resolution, resolution), dtype=np.uint8)
            self._pixels[resolution] = pixels, np.zeros(len(self), dtype=np.bool_)
        return self._pixels[resolution]

    def _decoded(self, index: int, resolution: int) -> Pixels:
        where = f"domain {self.name!r}, row {index} ({self.sources[index]})"
        return resized(decode(self._table.encoded(index), where=where), resolution=resolution)

    def split_sizes(self) -> dict[Split, int]:
        """Return the number of classes per split."""
        return {split: self.class_splits.count(split) for split in SPLITS}


def open_domain(name_or_path: str | Path, *, roots: Sequence[str] = ()) -> Domain:
    """Open a domain, once per process and file content.

    Parameters
    ----------
    name_or_path
        A string is a name: a bundled domain, else ``<root>/<name>.parquet``; it can never lead out of a root.
        A ``Path`` is a file or folder that any source recognises.
    roots
        Folders with the user's own domains.

    Raises
    ------
    DataError
        Unknown name (the nearest ones are named), missing or damaged file.
    """
    if isinstance(name_or_path, Path):
        return _open_file(name_or_path, name_or_path.stem)
    return _open_file(_locate(name_or_path, roots), name_or_path)


def domain_names(roots: Sequence[str] = ()) -> list[str]:
    """Return the bundled domains' names, then those found in ``roots``."""
    own = {file.stem for root in roots for file in _root(root).glob("*.parquet")}
    return [*split_shares(), *sorted(own - set(split_shares()))]


def _locate(name: str, roots: Sequence[str]) -> Path:
    file_name = f"{check_name(name, what='domain', error=DataError)}.parquet"
    places = [_root(root) for root in roots] + ([BUNDLED] if name in split_shares() else [])
    found = [path for root in places if (path := inside(root, file_name, what="domain", error=DataError)).is_file()]
    if len(found) > 1:
        raise DataError(f"domain {name!r} exists twice: {found[0]} and {found[1]}; rename one")
    if found:
        return found[0]
    if name in split_shares():
        raise DataError(f"domain {name!r}: {BUNDLED / file_name} is missing; reinstall tinytrain-dist")
    raise DataError(f"unknown domain {name!r}; {nearest(name, domain_names(roots))}")


def _root(root: str) -> Path:
    path = Path(root).expanduser()
    if not path.is_dir():
        raise DataError(f"data root {root!r}: no such folder")
    return path


def _open_file(path: Path, name: str) -> Domain:
    path = path.expanduser().resolve()
    source = source_of(path)
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    stamp = tuple((status.st_mtime_ns, status.st_size) for status in (file.stat() for file in files))
    return _opened(path, name, source, hash(stamp))


@functools.lru_cache(maxsize=64)
def _opened(path: Path, name: str, source: str, stamp: int) -> Domain:
    table = SOURCES[source].read(path)
    if path.parent == BUNDLED:
        table = dataclasses.replace(table, class_splits=bundled_splits(name, table.class_names))
    return Domain(name, table=table)
