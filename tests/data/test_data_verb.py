"""``tinytrain data``: through the console door, with its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tinytrain_dist.cli import main
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.foundation.errors import ExitCode

Encode = Callable[..., bytes]


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == ExitCode.DONE
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["signs"]["images"] == 2000 and rows["signs"]["test_classes"] == 100
    assert (
        rows["glyphs"]["superclasses"] == 9 and rows["emoji"]["train_classes"] + rows["emoji"]["valid_classes"] == 286
    )
    assert main(["data", "list"]) == ExitCode.DONE
    assert "fashion" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["data", "--help"], ["data"]])
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == ExitCode.DONE
    assert "example:" in capsys.readouterr().out


def test_mistakes_name_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "lst"]) == ExitCode.USAGE
    assert "did you mean 'list'" in capsys.readouterr().err
    assert main(["data", "check"]) == ExitCode.USAGE
    assert main(["data", "check", "x", "--shot", "0"]) == ExitCode.USAGE
    assert main(["data", "check", "/no/such/file"]) == ExitCode.BAD_INPUT
    assert "no such file or folder" in capsys.readouterr().err


def test_import_then_use(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "domains"
    argv = ["data", "import", str(photos), "--format", "image_folder", "--out", str(out), "--name", "mine", "--json"]
    assert main(argv) == ExitCode.DONE
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 12 and report["written"].endswith("mine.parquet")
    domain = open_domain("mine", roots=[str(out)])
    assert domain.class_names == ("ant", "bee", "cat") and domain.content_hash == report["content_hash"]
    assert pq.read_schema(out / "mine.parquet").names == ["image", "label", "class_name", "source"]
    assert main(argv) == ExitCode.BAD_INPUT
    assert "exists; choose another --name" in capsys.readouterr().err
    assert main(["data", "check", str(out / "mine.parquet"), "--shot", "1"]) == ExitCode.DONE
    assert main(["data", "import", str(photos), "--format", "image_folder", "--out", str(out), "--name", "../x"]) == 3
    assert main(["data", "import", str(photos), "--format", "image_folder", "--out", str(out), "--name", "signs"]) == 3


def test_split_folders_survive_the_import(photos: Path, tmp_path: Path) -> None:
    (photos / "train").mkdir()
    (photos / "test").mkdir()
    for name, split in (("ant", "train"), ("bee", "train"), ("cat", "test")):
        (photos / name).rename(photos / split / name)
    out = tmp_path / "domains"
    assert main(["data", "import", str(photos), "--format", "image_folder", "--out", str(out)]) == ExitCode.DONE
    assert set(open_domain("photos", roots=[str(out)]).class_splits) == {"train", "test"}


def test_unusable_images_are_counted_and_named_and_nothing_is_written(
    photos: Path,
    tmp_path: Path,
    encode: Encode,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = encode(5, size=(60, 60))
    (photos / "ant" / "7.png").write_bytes(whole[: len(whole) // 2])
    (photos / "bee" / "8.jpg").write_bytes(b"not an image")
    (photos / "cat" / "9.png").write_bytes(encode(6, mode="L"))
    (photos / "cat" / "9.jpg").write_bytes(encode(6, mode="CMYK", form="JPEG"))
    assert main(["data", "check", str(photos), "--json"]) == ExitCode.BAD_INPUT
    findings = {f["kind"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    broken = findings["images that cannot be used"]
    assert broken["count"] == 2 and "row 4 (ant/7.png)" in broken["named"][0] and "bee/8.jpg" in broken["named"][1]
    assert findings["grey images converted to RGB"]["count"] == findings["cmyk images converted to RGB"]["count"] == 1
    out = tmp_path / "domains"
    assert main(["data", "import", str(photos), "--format", "image_folder", "--out", str(out)]) == ExitCode.BAD_INPUT
    assert "images that cannot be used: 2" in capsys.readouterr().err and not out.exists()


def test_one_class_and_small_classes(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(photos), "--json"]) == ExitCode.DONE
    report = json.loads(capsys.readouterr().out)
    assert [(f["level"], f["count"]) for f in report["findings"]] == [("warning", 3)]
    for name in ("bee", "cat"):
        for file in (photos / name).iterdir():
            file.unlink()
    assert main(["data", "check", str(photos)]) == ExitCode.BAD_INPUT
    assert "too few classes" in capsys.readouterr().out
