"""Sources: the project's own Parquet, Hugging Face's, image folders; what each refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinytrain_dist.data.sources import SOURCES, source_of
from tinytrain_dist.foundation.errors import ConfigError, DataError

Encode = Callable[..., bytes]


def write(path: Path, columns: dict[str, Any], names: list[str] | None = None) -> Path:
    table = pa.table(columns)
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def test_hugging_face_form(tmp_path: Path, encode: Encode) -> None:
    images = [{"bytes": encode(i), "path": f"{i}.png"} for i in range(3)]
    path = write(
        tmp_path / "hf.parquet", {"img": images, "label": [2, 0, 2], "extra": [1, 2, 3]}, ["ant", "bee", "cat"]
    )
    table = SOURCES["parquet"].read(path)
    assert table.class_names == ("ant", "cat") and table.labels.tolist() == [1, 0, 1]
    assert table.encoded(1) == encode(1)


def test_a_folder_of_shards(tmp_path: Path, encode: Encode) -> None:
    for shard in range(2):
        write(
            tmp_path / f"train-0000{shard}-of-00002.parquet", {"image": [encode(shard)], "label": [shard]}, ["a", "b"]
        )
    assert source_of(tmp_path) == "parquet"
    table = SOURCES["parquet"].read(tmp_path)
    assert table.class_names == ("a", "b") and [table.encoded(i) for i in (0, 1)] == [encode(0), encode(1)]


def test_split_column(tmp_path: Path, encode: Encode) -> None:
    images = [encode(i) for i in range(3)]
    columns = {"image": images, "label": [0, 1, 2], "split": ["train", "validation", "test"]}
    assert SOURCES["parquet"].read(write(tmp_path / "s.parquet", columns)).class_splits == ("train", "valid", "test")
    columns = {"image": images, "label": [0, 1, 1], "split": ["train", "train", "test"]}
    with pytest.raises(DataError, match="row 2: class 1 has split 'test', earlier rows 'train'"):
        SOURCES["parquet"].read(write(tmp_path / "s.parquet", columns))


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"image": [b"x"]}, None, "column 'label' is missing; found: image"),
        ({"label": [0]}, None, "column 'image' is missing"),
        ({"image": ["x"], "label": [0]}, None, "column 'image' is string"),
        ({"image": [b"x"], "label": ["cat"]}, None, "column 'label' is string"),
        ({"image": [b"x", None], "label": [0, 1]}, None, "row 1: the image has no bytes"),
        ({"image": [b"x", b"y"], "label": [0, None]}, None, "row 1: no label"),
        ({"image": [b"x", b"y"], "label": [0, -1]}, None, "row 1: no label"),
        ({"image": [b"x"], "label": [3]}, ["a", "b"], "label 3 has no name"),
        ({"image": [b"x", b"y"], "label": [0, 1], "class_name": ["a", "a"]}, None, "share the class name 'a'"),
        ({"image": [b"x", b"y"], "label": [0, 0], "class_name": ["a", "b"]}, None, "row 1: class 0 has class_name 'b'"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, None, "no rows"),
    ],
)
def test_bad_parquet(tmp_path: Path, columns: dict[str, Any], names: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SOURCES["parquet"].read(write(tmp_path / "bad.parquet", columns, names))


def test_image_folder(photos: Path) -> None:
    (photos / "ant" / "readme.txt").write_text("no image")
    (photos / "empty").mkdir()
    assert source_of(photos) == "image_folder"
    table = SOURCES["image_folder"].read(photos)
    assert table.class_names == ("ant", "bee", "cat") and len(table) == 12 and set(table.class_splits) == {"test"}
    assert table.sources[4] == "bee/0.png"
    assert any("'empty' holds no image" in note for note in table.notes) and any(
        "'ant'" in note for note in table.notes
    )


def test_split_folders(tmp_path: Path, photos: Path) -> None:
    root = tmp_path / "split"
    for split, name in (("train", "ant"), ("val", "bee"), ("test", "cat")):
        (root / split).mkdir(parents=True)
        (photos / name).rename(root / split / name)
    table = SOURCES["image_folder"].read(root)
    assert dict(zip(table.class_names, table.class_splits, strict=True)) == {
        "ant": "train",
        "bee": "valid",
        "cat": "test",
    }
    (root / "test" / "cat").rename(root / "test" / "ant")
    with pytest.raises(DataError, match="class 'ant' stands in splits"):
        SOURCES["image_folder"].read(root)


def test_a_class_may_be_called_train(photos: Path) -> None:
    (photos / "ant").rename(photos / "train")
    assert SOURCES["image_folder"].read(photos).class_names == ("bee", "cat", "train")


def test_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a Parquet file nor"):
        source_of(tmp_path)
    (tmp_path / "ant").mkdir()
    with pytest.raises(DataError, match="no class folder holds an image"):
        SOURCES["image_folder"].read(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'image_folder'"):
        SOURCES["imagefolder"]
