"""Names that could lead out of a folder, and atomic writes."""

import os
from pathlib import Path

import pytest

from tinytrain_dist.foundation.errors import ConfigError, ProfileError, StorageError
from tinytrain_dist.foundation.paths import atomic_write, check_name, inside, local_path

BAD_NAMES = [
    "../../etc/passwd",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/b",
    "a\\b",
    ".hidden",
    "a..b",
    "a\0b",
    "a\n",
    "x" * 200,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_unsafe_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="profile"):
        check_name(name, what="profile", error=ProfileError)
    with pytest.raises(ConfigError):
        inside(tmp_path, name, what="domain")


@pytest.mark.parametrize("name", ["stm32f746", "jetson--tensorrt--fp16--t4", "a.b", "C3_x+y", "0"])
def test_safe_name_is_returned(name: str, tmp_path: Path) -> None:
    assert check_name(name, what="profile") == name
    assert inside(tmp_path, name, what="profile") == tmp_path / name


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    folder, secret = tmp_path / "profiles", tmp_path / "secret.yaml"
    folder.mkdir()
    secret.write_text("x")
    (folder / "out.yaml").symlink_to(secret)
    (folder / "in.yaml").symlink_to(folder / "real.yaml")
    with pytest.raises(ConfigError, match="leads out"):
        inside(folder, "out.yaml", what="profile")
    assert inside(folder, "in.yaml", what="profile") == folder / "in.yaml"


def test_local_path() -> None:
    assert local_path("file:///tmp/x", what="run") == Path("/tmp/x").resolve()
    assert local_path("runs", what="run").is_absolute()
    with pytest.raises(StorageError, match="'s3'"):
        local_path("s3://bucket/run", what="run")


def test_atomic_write_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [x.name for x in path.parent.iterdir()] == ["file.bin"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    atomic_write(path, b"old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StorageError, match="No space left"):
        atomic_write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [x.name for x in tmp_path.iterdir()] == ["file.bin"]


def test_folder_in_the_way_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        atomic_write(tmp_path / "file" / "inner.bin", b"x")


def test_files_are_for_whom_the_umask_lets_read_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
