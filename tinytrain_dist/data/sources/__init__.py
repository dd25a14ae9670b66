"""Sources: one file per way images come in; ``SOURCES`` finds them by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tinytrain_dist.data.image_table import ImageTable
from tinytrain_dist.foundation.errors import DataError
from tinytrain_dist.foundation.registry import Registry


class Source(Protocol):
    """Reads images with classes from a path; reading does not decode."""

    def recognises(self, path: Path) -> bool:
        """Return whether ``path`` looks like this source's form."""

    def read(self, path: Path) -> ImageTable:
        """Return the images of ``path``; raises ``DataError`` naming file, row or folder."""


SOURCES: Registry[Source] = Registry(
    "source",
    package="tinytrain_dist.data.sources",
    modules=lambda: ["parquet", "meta_dataset", "image_folder", "mini_imagenet"],
    entry_point_group="tinytrain_dist.sources",
)


def source_of(path: Path) -> str:
    """Return the name of the first source that recognises ``path``; raises ``DataError`` when there is none."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    for name in SOURCES:
        if SOURCES[name].recognises(path):
            return name
    raise DataError(
        f"{path}: neither a Parquet file nor Meta-Dataset's records nor a folder of class folders; "
        f"formats: {', '.join(SOURCES)}"
    )
