"""Domains: opening by name or path, hashes, splits, pixels."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinytrain_dist.data.domain import Domain, SplitName, domain_names, open_domain
from tinytrain_dist.data.image_table import ImageTable, binary_column
from tinytrain_dist.data.splits import BUNDLED, bundled_splits, split_shares
from tinytrain_dist.foundation.errors import ConfigError, DataError

Encode = Callable[..., bytes]

EXPECTED = {
    "emoji": (2158, 286), "icons": (2804, 120), "glyphs": (3867, 200), "signs": (2000, 100),
    "clipart": (1124, 42), "fashion": (600, 10), "flags": (1567, 200),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_bundled_domain(name: str) -> None:
    domain = open_domain(name)
    assert (len(domain), len(domain.class_names)) == EXPECTED[name]
    assert open_domain(name) is domain
    parts = [set(domain.classes(split)) for split in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(domain.classes("all"))
    if name in ("emoji", "icons"):
        assert 0.7 < len(parts[0]) / len(domain.class_names) < 0.9 and not parts[2]
    else:
        assert len(parts[2]) == len(domain.class_names)
    assert (domain.superclasses is not None) == (name == "glyphs")
    assert all((np.diff(domain.class_images(c)) > 0).all() for c in domain.classes("all"))


def test_every_bundled_file_has_a_split_rule_and_a_licence() -> None:
    files = {file.stem for file in BUNDLED.glob("*.parquet")}
    with (BUNDLED / "LICENSES.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert files == set(split_shares()) == set(EXPECTED) == {row["domain"] for row in rows}
    assert all(row["licence"] for row in rows)
    for name in files:
        licensed = {row["source"] for row in rows if row["domain"] == name}
        assert "*" in licensed or set(open_domain(name).sources) <= licensed


def test_a_class_keeps_its_split_whatever_else_is_there() -> None:
    names = open_domain("emoji").class_names
    assert bundled_splits("emoji", names[10:20]) == bundled_splits("emoji", names)[10:20]


def table(encode: Encode, **changes: object) -> ImageTable:
    plain = ImageTable(
        images=binary_column([encode(i) for i in range(4)]),
        labels=np.array([0, 0, 1, 1]),
        sources=["a", "b", "c", "d"],
        class_names=("x", "y"),
        class_splits=("test", "test"),
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def test_content_hash_sees_content_only(encode: Encode) -> None:
    base = table(encode)
    rechunked = pa.chunked_array([base.images.chunk(0)[:1], base.images.chunk(0)[1:]])
    same = table(encode, images=rechunked.cast(pa.large_binary()), sources=["", "", "", ""], notes=("note",))
    assert Domain("one", table=base).content_hash == Domain("two", table=same).content_hash
    others = [
        table(encode, labels=np.array([0, 1, 0, 1])),
        table(encode, class_names=("x", "z")),
        table(encode, class_splits=("train", "test")),
        table(encode, superclasses=("s", "s")),
        table(encode, images=binary_column([encode(i) for i in (0, 1, 2, 9)])),
    ]
    assert len({t.content_hash() for t in (base, *others)}) == len(others) + 1


def test_pixels_do_not_depend_on_order_or_cache(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (Domain("d", table=table(encode)) for _ in range(3))
    everything = one.images(np.arange(4), resolution=8)
    assert everything.shape == (4, 3, 8, 8) and everything.dtype == np.uint8
    assert (two.images(np.array([3, 0, 3]), resolution=8) == everything[[3, 0, 3]]).all()
    everything[:] = 0
    assert one.images(np.arange(4), resolution=8).any(), "a caller's change must not reach the cache"
    monkeypatch.setattr("tinytrain_dist.data.domain.CACHE_LIMIT_BYTES", 0)
    assert (three.images(np.arange(4), resolution=8) == two.images(np.arange(4), resolution=8)).all()


def test_own_domain_by_name_and_by_path(tmp_path: Path, encode: Encode) -> None:
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"image": [encode(0), encode(1)], "label": [4, 7]}), file)
    domain = open_domain("mine", roots=[str(tmp_path)])
    assert domain.class_names == ("4", "7") and domain.classes("test") == (0, 1) and domain.classes("train") == ()
    assert open_domain(file).content_hash == domain.content_hash and open_domain(file).name == "mine"
    assert domain_names([str(tmp_path)]) == [*split_shares(), "mine"]
    pq.write_table(pa.table({"image": [encode(0), encode(2)], "label": [4, 7]}), file)
    assert open_domain("mine", roots=[str(tmp_path)]).content_hash != domain.content_hash


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a/b", "", ".hidden", "x\\y", "signs\n"])
def test_a_name_never_leads_anywhere_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="domain"):
        open_domain(name, roots=[str(tmp_path)])


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out.parquet").symlink_to(BUNDLED / "signs.parquet")
    with pytest.raises(DataError, match="leads out"):
        open_domain("out", roots=[str(tmp_path / "root")])


def test_unknown_missing_and_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'signs'"):
        open_domain("sings")
    with pytest.raises(DataError, match="no such folder"):
        open_domain("signs", roots=[str(tmp_path / "none")])
    with pytest.raises(DataError, match="no such file"):
        open_domain(tmp_path / "none.parquet")
    (tmp_path / "signs.parquet").write_bytes((BUNDLED / "signs.parquet").read_bytes())
    with pytest.raises(DataError, match="exists twice"):
        open_domain("signs", roots=[str(tmp_path)])
    with pytest.raises(ConfigError, match="did you mean 'valid'"):
        open_domain("signs").classes("vald")  # type: ignore[arg-type]
    assert get_args(SplitName) == ("train", "valid", "test", "all")


def test_a_damaged_file_is_bad_data(tmp_path: Path) -> None:
    data = (BUNDLED / "fashion.parquet").read_bytes()
    for name, content in {"cut": data[: len(data) // 2], "empty": b"", "text": b"hello"}.items():
        (tmp_path / f"{name}.parquet").write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.parquet: not a readable Parquet domain"):
            open_domain(name, roots=[str(tmp_path)])
