"""Content hashes: stable, order-free for mappings, sensitive to content."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.foundation.hashing import bytes_hash, canonical_json, content_hash, file_hash

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@dataclass(frozen=True)
class Point:
    x: int
    y: tuple[int, ...]


def test_known_hash() -> None:
    """Stored results are found by these: a change here orphans them."""
    assert content_hash({"b": [1, 2], "a": None}) == bytes_hash(b'{"a":null,"b":[1,2]}', length=16)
    assert content_hash([]) == "4f53cda18c2baa0c"


def test_dataclasses_and_tuples() -> None:
    assert canonical_json(Point(1, (2, 3))) == '{"x":1,"y":[2,3]}'
    with pytest.raises(TypeError):
        canonical_json(object())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_has_no_hash(value: float) -> None:
    with pytest.raises(ValueError):
        content_hash({"a": value})


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert content_hash(dict(reversed(value.items()))) == content_hash(value)


@given(VALUES, VALUES)
def test_equal_hash_means_equal_json(first: object, second: object) -> None:
    assert (content_hash(first) == content_hash(second)) == (canonical_json(first) == canonical_json(second))


def test_file_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 1000)
    assert file_hash(path) == bytes_hash(b"abc" * 1000)
