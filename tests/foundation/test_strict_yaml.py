"""YAML from users: what is refused, and that the message says where."""

from pathlib import Path

import pytest

from tinytrain_dist.foundation.errors import ConfigError, ProfileError
from tinytrain_dist.foundation.strict_yaml import MAX_YAML_BYTES, load_yaml, parse_yaml


def test_plain_mapping() -> None:
    text = "name: stm32\nram_bytes: 327680\nlimits: {time_ms: 1.5, strict: true}\nlist: [1, 2]\n"
    expected = {"name": "stm32", "ram_bytes": 327680, "limits": {"time_ms": 1.5, "strict": True}, "list": [1, 2]}
    assert parse_yaml(text, name="x.yaml") == expected


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "duplicate key 'a'"),
        ("outer:\n  a: 1\n  a: 2\n", "duplicate key 'a'"),
        (BOMB, "aliases"),
        ("a: &x {b: *x}\n", "aliases"),
        ("base: &b {x: 1}\nmore:\n  <<: *b\n", "aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "python/object"),
        ("a: !!python/name:os.system\n", "python/name"),
        ("_target_: os.system\n", "_target_"),
        ("deep:\n  - {_target_: os.system}\n", "_target_"),
        ("a: {_partial_: true}\n", "_partial_"),
        ("on: 1\n", "no plain word"),
        ("? [1, 2]\n: x\n", "no plain word"),
        ("- 1\n- 2\n", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: [1\n", "line"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("[" * 5000, "x.yaml"),
    ],
)
def test_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse_yaml(text, name="x.yaml")
    assert "x.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_runs(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    with pytest.raises(ConfigError):
        parse_yaml(f"a: !!python/object/apply:os.system ['touch {target}']\n", name="x.yaml")
    assert not target.exists()


def test_a_large_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text("a: " + "x" * 10 * MAX_YAML_BYTES)
    with pytest.raises(ProfileError, match=f"at most {MAX_YAML_BYTES}"):
        load_yaml(path, error=ProfileError)


def test_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot be read"):
        load_yaml(tmp_path / "binary.yaml")
