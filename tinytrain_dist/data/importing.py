"""Conversion of any source into a Parquet file of the project's own form: all of it, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.data.image_table import ImageTable
from tinytrain_dist.data.inspection import DomainReport, refuse, report_on
from tinytrain_dist.data.sources import SOURCES
from tinytrain_dist.data.splits import split_shares
from tinytrain_dist.foundation.errors import DataError
from tinytrain_dist.foundation.paths import atomic_write, check_name, inside


def import_domain(source: Path, *, format: str, out: Path, name: str | None = None) -> tuple[Path, DomainReport]:
    """Check every image of ``source`` and write ``out/<name>.parquet``; encoded images are kept as they are.

    Parameters
    ----------
    source
        File or folder.
    format
        Name of a source, such as ``image_folder``.
    out
        Folder for the new file; created if missing.
    name
        Name of the domain; by default the last part of ``source``.

    Raises
    ------
    DataError
        Unusable images or classes (all counted, the first named), a name that is taken, an unreadable source.
    StorageError
        The file cannot be written.
    """
    target = _target(out, name or source.resolve().stem)
    table = SOURCES[format].read(source)
    report = report_on(table, path=str(source), format=format, shot=5, query=10)
    refuse(report)
    atomic_write(target, _encode(table))
    return target, report


def _target(out: Path, name: str) -> Path:
    if name in split_shares():
        raise DataError(f"domain {name!r} is bundled; choose another --name")
    target = inside(out, f"{check_name(name, what='domain', error=DataError)}.parquet", what="domain", error=DataError)
    if target.exists():
        raise DataError(f"{target} exists; choose another --name or remove it")
    return target


def _encode(table: ImageTable) -> bytes:
    columns = {
        "image": table.images.cast(pa.binary()),
        "label": pa.array(table.labels.astype(np.int32)),
        "class_name": _per_image(table, table.class_names),
        "source": pa.array(table.sources, pa.string()),
    }
    if table.superclasses is not None:
        columns["superclass"] = _per_image(table, table.superclasses)
    if set(table.class_splits) != {"test"}:
        columns["split"] = _per_image(table, table.class_splits)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd", row_group_size=1024)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _per_image(table: ImageTable, values: tuple[str, ...]) -> Any:
    return pa.array([values[label] for label in table.labels.tolist()], pa.string())
