"""Meta-Dataset's records in their exact layout, written by the independent package ``tfrecord``; damage is named."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec, draw_episode
from tinytrain_dist.data.importing import import_domain
from tinytrain_dist.data.sources import SOURCES, source_of
from tinytrain_dist.data.tfrecords import crc32c, masked_crc, parse_example, read_records
from tinytrain_dist.foundation.errors import DataError

tfrecord_writer = pytest.importorskip("tfrecord.writer", reason="the package tfrecord is not installed")
Encode = Callable[..., bytes]
FLAT = {
    "__class__": "DatasetSpecification", "name": "toy", "path": "/where/it/was", "file_pattern": "{}.tfrecords",
    "classes_per_split": {"TRAIN": 2, "VALID": 1, "TEST": 2},
    "class_names": {str(c): f"name{c}" for c in range(5)}, "images_per_class": {str(c): 3 for c in range(5)},
}  # fmt: skip
TWO_LEVELS = {
    "__class__": "BiLevelDatasetSpecification", "name": "letters", "path": "", "file_pattern": "{}.tfrecords",
    "superclasses_per_split": {"TRAIN": 1, "VALID": 1, "TEST": 1},
    "classes_per_superclass": {"0": 2, "1": 1, "2": 2}, "superclass_names": {"0": "Greek", "1": "Thai", "2": "Latin"},
    "class_names": {str(c): f"letter{c}" for c in range(5)}, "images_per_class": {str(c): 3 for c in range(5)},
}  # fmt: skip


def node(name: str, *children: str) -> dict[str, Any]:
    return {"wn_id": name, "words": name, "children_ids": list(children), "parents_ids": []}


GRAPH = {
    "__class__": "HierarchicalDatasetSpecification", "name": "ilsvrc_2012", "path": "", "file_pattern": "{}.tfrecords",
    "split_subgraphs": {
        "TRAIN": [node("n10", "n0", "n1"), node("n0"), node("n1")], "VALID": [node("n2")],
        "TEST": [node("n11", "n3", "n4"), node("n3"), node("n4")],
    },
    "images_per_class": {
        "TRAIN": {"n10": 6, "n0": 3, "n1": 3}, "VALID": {"n2": 3}, "TEST": {"n11": 6, "n3": 3, "n4": 3},
    },
    "class_names": {str(c): f"n{c}" for c in range(5)},
}  # fmt: skip


def write_class(path: Path, label: int, images: list[bytes]) -> None:
    writer = tfrecord_writer.TFRecordWriter(str(path))
    for image in images:
        writer.write({"image": (image, "byte"), "label": (label, "int")})
    writer.close()


def write(folder: Path, spec: dict[str, Any], encode: Encode) -> Path:
    folder.mkdir()
    for label in range(5):
        images = [encode(10 * label + i, form="JPEG") for i in range(3)]
        write_class(folder / f"{label}.tfrecords", label, images)
    (folder / "dataset_spec.json").write_text(json.dumps(spec))
    return folder


@pytest.mark.parametrize("spec", [FLAT, TWO_LEVELS, GRAPH], ids=lambda spec: spec["__class__"])
def test_official_splits_of_every_kind(tmp_path: Path, encode: Encode, spec: dict[str, Any]) -> None:
    folder = write(tmp_path / "toy", spec, encode)
    assert source_of(folder) == "meta_dataset"
    table = SOURCES["meta_dataset"].read(folder)
    assert table.class_splits == ("train", "train", "valid", "test", "test")
    assert table.class_names == tuple(spec["class_names"].values())
    assert table.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert [table.encoded(i) for i in (0, 14)] == [encode(0, form="JPEG"), encode(42, form="JPEG")]
    wanted = ("Greek", "Greek", "Thai", "Latin", "Latin") if spec is TWO_LEVELS else None
    assert table.superclasses == wanted


def test_import_then_episodes_of_the_test_split(tmp_path: Path, encode: Encode) -> None:
    target, report = import_domain(write(tmp_path / "toy", FLAT, encode), format="meta_dataset", out=tmp_path / "out")
    assert report.classes_per_split == {"train": 2, "valid": 1, "test": 2}
    domain = open_domain("toy", roots=[str(target.parent)])
    settings = EpisodeSettings(way=2, shot=1, query=2)
    drawn = draw_episode(domain, EpisodeSpec.of(domain, split="test", settings=settings, seed=0, index=0))
    assert set(drawn.class_ids) == {3, 4}


def test_shards_of_a_class_are_joined(tmp_path: Path, encode: Encode) -> None:
    spec = FLAT | {
        "file_pattern": "{}_{}.tfrecords", "images_per_class": {str(c): {"train": 2, "test": 1} for c in range(5)}
    }  # fmt: skip
    folder = tmp_path / "toy"
    folder.mkdir()
    for label in range(5):
        write_class(folder / f"{label}_train.tfrecords", label, [encode(label), encode(label + 50)])
        write_class(folder / f"{label}_test.tfrecords", label, [encode(label + 90)])
    (folder / "dataset_spec.json").write_text(json.dumps(spec))
    table = SOURCES["meta_dataset"].read(folder)
    assert len(table) == 15 and table.encoded(0) == encode(90)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"__class__": "DatasetSpecificatoin"}, "did you mean 'DatasetSpecification'"),
        ({"classes_per_split": {"TRAIN": 2, "VALID": 1}}, r"classes_per_split.TEST is None"),
        ({"classes_per_split": {"TRAIN": 2, "VALID": 1, "TEST": 3}}, "no name for class 5 of 6"),
        ({"images_per_class": {str(c): 4 for c in range(5)}}, "has 3 images; dataset_spec.json says 4"),
        ({"file_pattern": "../{}.tfrecords"}, "file_pattern"),
        ({"class_names": [1, 2]}, "class_names is list"),
    ],
)
def test_a_specification_that_does_not_fit_is_named(
    tmp_path: Path, encode: Encode, change: dict[str, Any], words: str
) -> None:
    folder = write(tmp_path / "toy", FLAT | change, encode)
    with pytest.raises(DataError, match=words):
        SOURCES["meta_dataset"].read(folder)


def test_damage_is_named_with_its_record(tmp_path: Path, encode: Encode) -> None:
    folder = write(tmp_path / "toy", FLAT, encode)
    file = folder / "3.tfrecords"
    whole = file.read_bytes()
    for damaged, words in (
        (whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], "record 0: checksum of its data"),
        (bytes([whole[0] ^ 1]) + whole[1:], "record 0: checksum of its length"),
        (whole[:-7], "record 2: truncated"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"3\.tfrecords: {words}"):
            SOURCES["meta_dataset"].read(folder)
    write_class(file, 2, [encode(1)] * 3)
    with pytest.raises(DataError, match=r"record 0: label \[2\]; expected \[3\]"):
        SOURCES["meta_dataset"].read(folder)
    file.unlink()
    with pytest.raises(DataError, match=r"class 3 .* has no \.tfrecords file"):
        SOURCES["meta_dataset"].read(folder)


def test_a_record_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    length = struct.pack("<Q", 1 << 50)
    (tmp_path / "x.tfrecords").write_bytes(length + struct.pack("<I", masked_crc(length)))
    with pytest.raises(DataError, match="at most"):
        list(read_records(tmp_path / "x.tfrecords"))


def test_checksum_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA


@given(image=st.binary(max_size=300), label=st.integers(-(1 << 63), (1 << 63) - 1), more=st.lists(st.integers(0, 9)))
def test_examples_are_parsed_as_they_were_written(image: bytes, label: int, more: list[int]) -> None:
    data = {"image": (image, "byte"), "label": (label, "int"), "x": ([0.5, 1.5], "float"), "more": (more, "int")}
    record = tfrecord_writer.TFRecordWriter.serialize_tf_example(data)
    found = parse_example(record, where="here")
    assert found["image"] == [image] and found["label"] == [label] and found["more"] == more and found["x"] == []


@given(st.binary(max_size=60))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        parse_example(data, where="here")
    except DataError as error:
        assert str(error).startswith("here")
