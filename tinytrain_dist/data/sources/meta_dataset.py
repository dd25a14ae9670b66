"""Meta-Dataset's records: ``<name>/dataset_spec.json`` and ``<class id>.tfrecords`` (Triantafillou et al., ICLR 2020).

Class ids count through train, valid and test, so the official splits are read off the specification. Written by the
conversion scripts of github.com/google-research/meta-dataset; kinds: DatasetSpecification, BiLevelDatasetSpecification
(superclasses: Omniglot's alphabets) and HierarchicalDatasetSpecification (ImageNet: the leaves of each split's graph;
the graph itself serves a sampler that is not used at test time).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain_dist.data.image_table import ImageTable, Split, binary_column
from tinytrain_dist.data.sources import SOURCES
from tinytrain_dist.data.tfrecords import parse_example, read_records
from tinytrain_dist.foundation.errors import DataError, nearest

SPEC_FILE = "dataset_spec.json"
MAX_SPEC_BYTES = 64 * 1024**2
_SPLITS: tuple[tuple[str, Split], ...] = (("TRAIN", "train"), ("VALID", "valid"), ("TEST", "test"))
_PATTERNS = ("{}.tfrecords", "{}_{}.tfrecords")


@dataclass(frozen=True, kw_only=True)
class _Class:
    number: int
    name: str
    split: Split
    superclass: str | None = None


class MetaDatasetSource:
    """Reads one dataset's folder; splits and superclasses are the official ones."""

    def recognises(self, path: Path) -> bool:
        """Return whether ``path`` is a folder with a specification."""
        return (path / SPEC_FILE).is_file()

    def read(self, path: Path) -> ImageTable:
        """Return all images; ``DataError`` names file and record, or the key of the specification."""
        spec = _Specification(path)
        images: list[bytes] = []
        labels: list[int] = []
        sources: list[str] = []
        kept: list[_Class] = []
        notes: list[str] = []
        for entry in spec.classes():
            found = list(_images(entry, spec.files(entry)))
            if not found:
                notes.append(f"class {entry.number} ({entry.name}) holds no image and is left out")
                continue
            spec.check_count(entry, len(found))
            images += [data for _, data in found]
            sources += [source for source, _ in found]
            labels += [len(kept)] * len(found)
            kept.append(entry)
        if not kept:
            raise DataError(f"{path}: no class holds an image")
        return ImageTable(
            images=binary_column(images), labels=np.array(labels, dtype=np.int64), sources=sources,
            class_names=_distinct(kept), class_splits=tuple(entry.split for entry in kept),
            superclasses=tuple(str(x.superclass) for x in kept) if kept[0].superclass is not None else None,
            notes=tuple(notes),
        )  # fmt: skip


def _images(entry: _Class, files: list[Path]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        for number, record in enumerate(read_records(file)):
            where = f"{file}: record {number}"
            example = parse_example(record, where=where)
            image, label = example.get("image"), example.get("label")
            if not image or not isinstance(image[0], bytes):
                raise DataError(f"{where}: feature 'image' is missing; found: {', '.join(sorted(example)) or 'none'}")
            if label != [entry.number]:
                raise DataError(f"{where}: label {label}; expected [{entry.number}], the class of the file")
            yield f"{file.name}:{number}", image[0]


def _distinct(classes: list[_Class]) -> tuple[str, ...]:
    names = [entry.name for entry in classes]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return tuple(f"{x.name} ({x.number})" if x.name in twice else x.name for x in classes)


class _Specification:
    """``dataset_spec.json``, checked as far as it is used."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / SPEC_FILE
        try:
            if self._path.stat().st_size > MAX_SPEC_BYTES:
                raise DataError(f"{self._path}: more than {MAX_SPEC_BYTES} bytes")
            self._values: Any = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as exc:
            raise DataError(f"{self._path}: cannot be read: {exc}") from exc
        kinds = {
            "DatasetSpecification": self._plain, "BiLevelDatasetSpecification": self._two_levels,
            "HierarchicalDatasetSpecification": self._graph,
        }  # fmt: skip
        kind = self._get("__class__", str)
        if kind not in kinds:
            raise DataError(f"{self._path}: __class__ {kind!r}; {nearest(kind, kinds)}")
        self._sizes, self._supers = kinds[kind]()
        if (pattern := self._get("file_pattern", str)) not in _PATTERNS:
            raise DataError(f"{self._path}: file_pattern {pattern!r}; allowed: {', '.join(_PATTERNS)}")
        self._sharded = pattern == _PATTERNS[1]

    def classes(self) -> list[_Class]:
        """Return every class in the order of its id."""
        names = self._get("class_names", dict)
        splits = [split for (_, split), size in zip(_SPLITS, self._sizes, strict=True) for _ in range(size)]
        missing = [number for number in range(len(splits)) if str(number) not in names]
        if missing:
            raise DataError(f"{self._path}: class_names: no name for class {missing[0]} of {len(splits)}")
        return [
            _Class(
                number=number, name=str(names[str(number)]), split=split,
                superclass=None if self._supers is None else self._supers[number],
            )
            for number, split in enumerate(splits)
        ]  # fmt: skip

    def files(self, entry: _Class) -> list[Path]:
        """Return the files of a class: one, or its shards or pools in the order of their names."""
        if self._sharded:
            found = sorted(self._folder.glob(f"{entry.number}_*.tfrecords"))
        else:
            # ImageNet's files may be named after the synset instead of the number
            names = (str(entry.number), entry.name)
            found = [p for name in names if "/" not in name and (p := self._folder / f"{name}.tfrecords").is_file()][:1]
        if not found:
            raise DataError(f"{self._folder}: class {entry.number} ({entry.name}) has no .tfrecords file")
        return found

    def check_count(self, entry: _Class, found: int) -> None:
        """Raise ``DataError`` unless the class has as many images as the specification says."""
        counts = self._get("images_per_class", dict)
        if entry.split.upper() in counts:  # by split, then by synset
            counts = counts[entry.split.upper()]
        said = counts.get(str(entry.number), counts.get(entry.name))
        wanted = sum(said.values()) if isinstance(said, dict) else said
        if wanted != found:
            raise DataError(
                f"{self._folder}: class {entry.number} ({entry.name}) has {found} images; {SPEC_FILE} says {wanted}"
            )

    def _plain(self) -> tuple[list[int], None]:
        return self._per_split("classes_per_split"), None

    def _two_levels(self) -> tuple[list[int], list[str]]:
        per_split, sizes = self._per_split("superclasses_per_split"), self._get("classes_per_superclass", dict)
        names = self._get("superclass_names", dict)
        numbers = range(sum(per_split))
        counts = [self._count(sizes.get(str(number)), f"classes_per_superclass.{number}") for number in numbers]
        supers = [str(names.get(str(number), number)) for number in numbers for _ in range(counts[number])]
        ends = np.cumsum([0, *per_split]).tolist()
        return [sum(counts[start:stop]) for start, stop in pairwise(ends)], supers

    def _graph(self) -> tuple[list[int], None]:
        graphs = self._get("split_subgraphs", dict)
        try:
            return [sum(not node["children_ids"] for node in graphs[name]) for name, _ in _SPLITS], None
        except (KeyError, TypeError) as exc:
            raise DataError(f"{self._path}: split_subgraphs: expected nodes with children_ids per split") from exc

    def _per_split(self, key: str) -> list[int]:
        values = self._get(key, dict)
        return [self._count(values.get(name), f"{key}.{name}") for name, _ in _SPLITS]

    def _count(self, value: Any, key: str) -> int:
        if not isinstance(value, int) or value < 0:
            raise DataError(f"{self._path}: {key} is {value!r}; expected a count")
        return value

    def _get(self, key: str, kind: type[Any]) -> Any:
        value = self._values.get(key) if isinstance(self._values, dict) else None
        if not isinstance(value, kind):
            raise DataError(f"{self._path}: {key} is {type(value).__name__}; expected {kind.__name__}")
        return value


SOURCES.register("meta_dataset", MetaDatasetSource())
