"""Image folder: ``class/*.jpg``, or ``train/class/*.jpg`` with split folders (train, valid, test)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinytrain_dist.data.image_table import SPLIT_ALIASES, ImageTable, Split, binary_column
from tinytrain_dist.data.images import SUFFIXES
from tinytrain_dist.data.sources import SOURCES
from tinytrain_dist.foundation.errors import DataError


@dataclass(frozen=True)
class _ClassFolder:
    name: str
    split: Split
    files: tuple[Path, ...]


class ImageFolderSource:
    """Reads class folders in the order of their names, images in the order of theirs."""

    def recognises(self, path: Path) -> bool:
        """Return whether ``path`` is a folder that holds folders."""
        return path.is_dir() and bool(_folders(path))

    def read(self, path: Path) -> ImageTable:
        """Return all images; without split folders every class is ``test``."""
        if not path.is_dir():
            raise DataError(f"{path}: not a folder; an image folder holds one folder of images per class")
        notes: list[str] = []
        classes = [folder for folder in _class_folders(path, notes) if folder.files]
        if not classes:
            raise DataError(f"{path}: no class folder holds an image ({', '.join(sorted(SUFFIXES))})")
        _refuse_shared_classes(path, classes)
        files = [file for folder in classes for file in folder.files]
        return ImageTable(
            images=binary_column([_bytes_of(file) for file in files]),
            labels=np.repeat(np.arange(len(classes), dtype=np.int64), [len(c.files) for c in classes]),
            sources=[file.relative_to(path).as_posix() for file in files],
            class_names=tuple(c.name for c in classes),
            class_splits=tuple(c.split for c in classes),
            notes=tuple(notes),
        )


def _class_folders(path: Path, notes: list[str]) -> Iterator[_ClassFolder]:
    parents: list[tuple[Path, Split]] = [(path, "test")]
    if _has_split_folders(path):
        parents = [(folder, SPLIT_ALIASES[folder.name.lower()]) for folder in _folders(path)]
    for parent, split in parents:
        for folder in _folders(parent):
            yield _ClassFolder(folder.name, split, _image_files(folder, notes))


def _has_split_folders(path: Path) -> bool:
    folders = _folders(path)
    return bool(folders) and all(f.name.lower() in SPLIT_ALIASES and _folders(f) for f in folders)


def _image_files(folder: Path, notes: list[str]) -> tuple[Path, ...]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = tuple(entry for entry in entries if entry.is_file() and entry.suffix.lower() in SUFFIXES)
    if not files:
        notes.append(f"class folder {folder.name!r} holds no image and is left out")
    elif len(files) < len(entries):
        notes.append(
            f"class folder {folder.name!r}: {len(entries) - len(files)} entries that are no image are left out"
        )
    return files


def _refuse_shared_classes(path: Path, classes: list[_ClassFolder]) -> None:
    seen: dict[str, Split] = {}
    for folder in classes:
        if folder.name in seen:
            raise DataError(
                f"{path}: class {folder.name!r} stands in splits {seen[folder.name]} and {folder.split}; "
                f"few-shot splits separate classes, not images: import one split folder on its own"
            )
        seen[folder.name] = folder.split


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise DataError(f"{file}: cannot be read: {exc.strerror or exc}") from exc


SOURCES.register("image_folder", ImageFolderSource())
