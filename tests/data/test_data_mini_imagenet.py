"""mini-ImageNet caches in their exact layout, by every pickle protocol; a payload never runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinytrain_dist.data.images import decode
from tinytrain_dist.data.sources import SOURCES, source_of
from tinytrain_dist.foundation.errors import DataError


def cache(first: int) -> dict[str, Any]:
    pixels = np.random.default_rng(first).integers(0, 256, (6, 84, 84, 3), dtype=np.uint8)
    return {"image_data": pixels, "class_dict": {f"n{first}": [0, 1, 2], f"n{first + 1}": [3, 4, 5]}}


def store(path: Path, value: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_three_caches_give_the_official_splits(tmp_path: Path, protocol: int) -> None:
    for number, split in enumerate(("train", "val", "test")):
        store(tmp_path / f"mini-imagenet-cache-{split}.pkl", cache(10 * number), protocol)
    table = SOURCES["mini_imagenet"].read(tmp_path)
    by_name = dict(zip(table.class_names, table.class_splits, strict=True))
    assert by_name == {
        "n0": "train", "n1": "train", "n10": "valid", "n11": "valid", "n20": "test", "n21": "test"
    }  # fmt: skip
    row = next(i for i, label in enumerate(table.labels) if table.class_names[label] == "n11") + 1
    found = np.asarray(decode(table.encoded(row), where="here"))
    np.testing.assert_array_equal(found, cache(10)["image_data"][4])


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_a_payload_never_runs(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    hidden = np.array([Payload(target)], dtype=object)
    for evil in (Payload(target), {"image_data": Payload(target)}, {"image_data": hidden, "class_dict": {}}):
        path = store(tmp_path / "mini-imagenet-cache-test.pkl", evil)
        with pytest.raises(DataError, match=r"asks for (posix|nt)\.system|dtype 'O8'"):
            SOURCES["mini_imagenet"].read(path)
    assert not target.exists()


class Addresses:
    """An array of objects over numbers, which NumPy itself takes for their addresses; looking at it follows them."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return np.ndarray, ((1,), "O", np.array([0x4141414141414141]))


def test_an_array_over_addresses_is_never_made(tmp_path: Path) -> None:
    path = store(tmp_path / "mini-imagenet-cache-test.pkl", cache(0) | {"class_dict": {"a": Addresses()}})
    with pytest.raises(DataError, match=r"calls numpy\.ndarray"):
        SOURCES["mini_imagenet"].read(path)


def test_caches_of_python_2_hold_bytes_as_strings(tmp_path: Path) -> None:
    path = tmp_path / "mini-imagenet-cache-test.pkl"
    pixels = cache(0)["image_data"].tobytes()
    data, text = pickle.dumps(cache(0), protocol=2), pixels.decode("latin1").encode()
    start = data.index(text) - 7  # Python 3 makes the bytes by a call: the function, the text and its length before it
    stop = data.index(b"R", data.index(text) + len(text)) + 1
    path.write_bytes(data[:start] + b"T" + len(pixels).to_bytes(4, "little") + pixels + data[stop:])
    table = SOURCES["mini_imagenet"].read(path)
    np.testing.assert_array_equal(np.asarray(decode(table.encoded(3), where="here")), cache(0)["image_data"][3])


def test_indices_may_be_arrays(tmp_path: Path) -> None:
    value = cache(0) | {"class_dict": {"a": np.array([4, 1]), "b": [np.int64(2)]}}
    table = SOURCES["mini_imagenet"].read(store(tmp_path / "mini-imagenet-cache-test.pkl", value))
    assert (table.class_names, table.labels.tolist()) == (("a", "b"), [0, 0, 1])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2], "image_data"),
        ({"image_data": np.zeros((2, 3)), "class_dict": {"a": [0]}}, "image_data: expected a uint8 array"),
        (cache(0) | {"class_dict": {"a": [99]}}, "expected indices of the 6 images"),
        (cache(0) | {"class_dict": {}}, "class_dict: expected a mapping"),
    ],
)
def test_other_content_is_named(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        SOURCES["mini_imagenet"].read(store(tmp_path / "mini-imagenet-cache-test.pkl", value))


def test_it_is_never_opened_unasked(tmp_path: Path) -> None:
    path = store(tmp_path / "mini-imagenet-cache-test.pkl", cache(0))
    with pytest.raises(DataError, match="neither a Parquet file"):
        source_of(path)
    with pytest.raises(DataError, match="the name must be"):
        SOURCES["mini_imagenet"].read(store(tmp_path / "other.pkl", cache(0)))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="refused"):
        SOURCES["mini_imagenet"].read(path)
