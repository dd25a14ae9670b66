"""What every source delivers: encoded images with class ids, names, splits; checked, hashable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tinytrain_dist.foundation.errors import DataError
from tinytrain_dist.foundation.hashing import canonical_json

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SPLIT_ALIASES: dict[str, Split] = {
    "train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test",
}  # fmt: skip

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Encoded images and the class of each.

    Parameters
    ----------
    images
        Arrow binary column [num_images] of encoded images, in the source's order.
    labels
        int64 [num_images], class id; every id of ``class_names`` occurs.
    sources
        Where each image came from (file name, type face, vendor), [num_images].
    class_names, class_splits
        Per class id.
    superclasses
        Per class id, or None for a domain of one level.
    notes
        What the source skipped, one line each (not part of the content).
    """

    images: Any
    labels: Labels
    sources: Sequence[str]
    class_names: tuple[str, ...]
    class_splits: tuple[Split, ...]
    superclasses: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.labels) == len(self.sources)
        assert len(self.class_names) == len(self.class_splits)
        assert self.superclasses is None or len(self.superclasses) == len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> bytes:
        """Return the bytes of one encoded image."""
        value = self.images[int(index)].as_py()
        assert isinstance(value, bytes)
        return value

    def content_hash(self) -> str:
        """Return 16 hex digits over classes, splits, labels and image bytes; chunking and paths do not matter."""
        classes = [self.class_names, self.class_splits, self.superclasses]
        digest = hashlib.sha256(canonical_json(classes).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        for chunk in self.images.chunks:
            for value in chunk:
                buffer = value.as_buffer()
                digest.update(buffer.size.to_bytes(8, "little"))
                digest.update(buffer)
        return digest.hexdigest()[:16]


def one_value_per_class(labels: Labels, values: Sequence[Any], *, what: str, path: object) -> list[Any]:
    """Return the value each class id has on all its rows; raises ``DataError`` when a class has two."""
    found: dict[int, Any] = {}
    for row, (label, value) in enumerate(zip(labels.tolist(), values, strict=True)):
        if value is None:
            raise DataError(f"{path}: row {row}: {what} is missing")
        if found.setdefault(label, value) != value:
            raise DataError(
                f"{path}: row {row}: class {label} has {what} {value!r}, earlier rows {found[label]!r}; "
                f"one {what} per class is allowed"
            )
    return [found[label] for label in sorted(found)]


def parse_split(word: object, *, where: str) -> Split:
    """Return the split named by ``word`` (aliases such as ``validation`` included)."""
    split = SPLIT_ALIASES.get(str(word).lower())
    if split is None:
        raise DataError(f"{where}: split {word!r} is unknown; allowed: {', '.join(SPLIT_ALIASES)}")
    return split


def binary_column(values: Sequence[bytes], *, rows_per_chunk: int = 1024) -> Any:
    """Return a chunked Arrow binary column; short chunks keep each below Arrow's 2 GiB of one binary array."""
    parts = range(0, len(values), rows_per_chunk)
    return pa.chunked_array([pa.array(values[i : i + rows_per_chunk], pa.binary()) for i in parts], type=pa.binary())
