"""Parquet: the project's own form and Hugging Face's, one file or a folder of shards.

Own form: ``image`` (binary), ``label`` (integer), optional ``class_name``, ``source``, ``superclass``, ``split``.
Hugging Face's: ``image`` as struct<bytes, path>; class names in the schema metadata key ``huggingface``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinytrain_dist.data.image_table import ImageTable, Labels, Split, one_value_per_class, parse_split
from tinytrain_dist.data.sources import SOURCES
from tinytrain_dist.foundation.errors import DataError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels")
OPTIONAL_COLUMNS = ("class_name", "source", "superclass", "split")


class ParquetSource:
    """Reads only the columns it needs; shards of a folder are joined in the order of their names."""

    def recognises(self, path: Path) -> bool:
        """Return whether ``path`` is a ``.parquet`` file or a folder that directly holds some."""
        return path.suffix == ".parquet" if path.is_file() else bool(_shards(path))

    def read(self, path: Path) -> ImageTable:
        """Return the images of a file or folder; raises ``DataError`` naming file, column or row."""
        table, features = _read_table(path)
        if not table.num_rows:
            raise DataError(f"{path}: no rows")
        images = _binary(table.column("image"), path=path)
        raw_labels = _integer_labels(table.column("label"), path=path)
        values, labels = np.unique(raw_labels, return_inverse=True)
        labels = labels.astype(np.int64)
        superclasses = _per_class(table, "superclass", labels, path=path)
        return ImageTable(
            images=images,
            labels=labels,
            sources=_sources(table, images),
            class_names=_class_names(table, labels, values, features, path=path),
            class_splits=_class_splits(table, labels, path=path),
            superclasses=tuple(str(s) for s in superclasses) if superclasses is not None else None,
        )


def _shards(path: Path) -> list[Path]:
    return sorted(path.glob("*.parquet")) if path.is_dir() else []


def _read_table(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return a table with the columns ``image`` and ``label``, and Hugging Face's feature description."""
    files = _shards(path) or [path]
    try:
        schema = pq.read_schema(files[0])
        image, label = _pick(schema, IMAGE_COLUMNS, path=path), _pick(schema, LABEL_COLUMNS, path=path)
        wanted = [image, label, *(name for name in OPTIONAL_COLUMNS if name in schema.names)]
        # ParquetFile, not read_table: a folder name such as a=b would add a partition column
        table = pa.concat_tables([pq.ParquetFile(file).read(columns=wanted) for file in files])
    except (pa.ArrowException, OSError, KeyError) as exc:
        if not path.exists():
            raise DataError(f"{path}: no such file") from exc
        raise DataError(f"{path}: not a readable Parquet domain: {' '.join(str(exc).split())}") from exc
    features = _huggingface_features(schema)
    names = {image: "image", label: "label"}
    return table.rename_columns([names.get(n, n) for n in table.column_names]), dict(features.get(label) or {})


def _pick(schema: Any, names: Sequence[str], *, path: Path) -> str:
    for name in names:
        if name in schema.names:
            return name
    raise DataError(f"{path}: column {names[0]!r} is missing; found: {', '.join(schema.names)}")


def _huggingface_features(schema: Any) -> dict[str, Any]:
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return described if isinstance(described, dict) else {}


def _binary(column: Any, *, path: Path) -> Any:
    if pa.types.is_struct(column.type):
        if "bytes" not in [column.type.field(i).name for i in range(column.type.num_fields)]:
            raise DataError(f"{path}: column 'image' is {column.type}; allowed: binary or struct<bytes, path>")
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"{path}: column 'image' is {column.type}; allowed: binary or struct<bytes, path>")
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}: row {row}: the image has no bytes (a path alone is not followed)")
    return column


def _integer_labels(column: Any, *, path: Path) -> Labels:
    if not pa.types.is_integer(column.type):
        raise DataError(f"{path}: column 'label' is {column.type}; allowed: an integer class id")
    labels = column.cast(pa.int64()).fill_null(-1).to_numpy()
    if (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        raise DataError(f"{path}: row {row}: no label (null or negative); every image needs its class")
    return np.asarray(labels, dtype=np.int64)


def _per_class(table: Any, name: str, labels: Labels, *, path: Path) -> list[Any] | None:
    if name not in table.column_names:
        return None
    return one_value_per_class(labels, table.column(name).to_pylist(), what=name, path=path)


def _class_names(
    table: Any, labels: Labels, values: Labels, features: dict[str, Any], *, path: Path
) -> tuple[str, ...]:
    names = _per_class(table, "class_name", labels, path=path)
    if names is None:
        listed = features.get("names")
        if isinstance(listed, list) and len(listed) <= values[-1]:
            raise DataError(f"{path}: label {values[-1]} has no name; the file's metadata names {len(listed)} classes")
        names = [listed[value] for value in values] if isinstance(listed, list) else values.tolist()
    words = tuple(str(name) for name in names)
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:
        raise DataError(f"{path}: two labels share the class name {twice[0]!r}; names must be distinct")
    return words


def _class_splits(table: Any, labels: Labels, *, path: Path) -> tuple[Split, ...]:
    words: Iterable[Any] | None = _per_class(table, "split", labels, path=path)
    if words is None:
        return tuple("test" for _ in range(int(labels.max()) + 1))
    return tuple(parse_split(word, where=str(path)) for word in words)


def _sources(table: Any, images: Any) -> Sequence[str]:
    if "source" not in table.column_names:
        return [""] * len(images)
    return [str(value) for value in table.column("source").fill_null("").to_pylist()]


SOURCES.register("parquet", ParquetSource())
