"""mini-ImageNet caches: ``mini-imagenet-cache-{train,val,test}.pkl``, each a pickle {'image_data', 'class_dict'}.

A pickle may run code, so this is a one-way converter for ``tinytrain data import`` only, and what it unpickles is
limited to containers and NumPy arrays. Images become lossless PNG.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinytrain_dist.data.image_table import SPLIT_ALIASES, ImageTable, Split, binary_column
from tinytrain_dist.data.sources import SOURCES
from tinytrain_dist.foundation.array_pickles import STAND_INS, plain
from tinytrain_dist.foundation.errors import DataError

MAX_FILE_BYTES = 8 * 1024**3
_NAME = re.compile(r"mini-imagenet-cache-(train|val|test)\.pkl")


def _latin1(text: str, encoding: str) -> bytes:
    """What ``_codecs.encode`` does in pickles of bytes by protocol 2, and nothing else."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {("_codecs", "encode"): _latin1} | STAND_INS


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}")
        return _ALLOWED[module, name]


class MiniImageNetSource:
    """Reads one cache, or a folder of them; a cache's name says its split."""

    def recognises(self, path: Path) -> bool:
        """Return False: a pickle is only opened when ``--format mini_imagenet`` asks for it."""
        return False

    def read(self, path: Path) -> ImageTable:
        """Return the images of all caches; ``DataError`` names the file and what is wrong in it."""
        files = sorted(path.glob("mini-imagenet-cache-*.pkl")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: holds no mini-imagenet-cache-train.pkl, -val.pkl or -test.pkl")
        images: list[bytes] = []
        labels: list[int] = []
        names: list[str] = []
        splits: list[Split] = []
        sources: list[str] = []
        for file in files:
            pixels, classes = _opened(file)
            for name, members in classes.items():
                if name in names:
                    raise DataError(f"{file}: class {name!r} stands in an earlier cache too; splits must not overlap")
                images += [_png(pixels[index]) for index in members]
                sources += [f"{file.name}:{index}" for index in members]
                labels += [len(names)] * len(members)
                names.append(name)
                splits.append(_split_of(file))
        return ImageTable(
            images=binary_column(images), labels=np.array(labels, dtype=np.int64), sources=sources,
            class_names=tuple(names), class_splits=tuple(splits),
        )  # fmt: skip


def _split_of(file: Path) -> Split:
    match = _NAME.fullmatch(file.name)
    if match is None:
        raise DataError(f"{file}: the name must be mini-imagenet-cache-train.pkl, -val.pkl or -test.pkl")
    return SPLIT_ALIASES[match.group(1)]


def _opened(file: Path) -> tuple[Any, dict[str, list[int]]]:
    _split_of(file)
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{file}: more than {MAX_FILE_BYTES} bytes")
        with file.open("rb") as stream:
            raw = plain(_ArraysOnly(stream, encoding="latin1").load())
    except OSError as exc:
        raise DataError(f"{file}: cannot be read: {exc.strerror or exc}") from exc
    except DataError:
        raise
    except Exception as exc:  # a damaged pickle may raise anything; nothing of it has run
        raise DataError(f"{file}: refused: {exc}; allowed: containers and NumPy arrays") from exc
    pixels, classes = (raw.get("image_data"), raw.get("class_dict")) if isinstance(raw, dict) else (None, None)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise DataError(f"{file}: image_data: expected a uint8 array [n, height, width, 3]")
    if not isinstance(classes, dict) or not classes:
        raise DataError(f"{file}: class_dict: expected a mapping from class names to image indices")
    return pixels, {str(name): _indices(members, len(pixels), str(name), file) for name, members in classes.items()}


def _indices(members: Any, count: int, name: str, file: Path) -> list[int]:
    try:
        found = [int(index) for index in members]
    except (TypeError, ValueError):
        found = []
    if not found or min(found) < 0 or max(found) >= count:
        raise DataError(f"{file}: class_dict: {name!r}: expected indices of the {count} images")
    return found


def _png(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


SOURCES.register("mini_imagenet", MiniImageNetSource())
