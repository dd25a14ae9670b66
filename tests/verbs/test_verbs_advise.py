"""``tinytrain advise``: from a folder of pictures to an answer, and what is refused on the way."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinytrain_dist.backbones.card import CheckpointCard, Initialization
from tinytrain_dist.backbones.checkpoint import save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import EpisodeSettings, draw_episode
from tinytrain_dist.foundation.errors import CheckpointError, ConfigError, DataError, ExitCode
from tinytrain_dist.simulation.plan_run import plan_run
from tinytrain_dist.simulation.settings import SimulationSettings
from tinytrain_dist.verbs.advise_job import default_devices, judged_pictures
from tinytrain_dist.verbs.advise_pictures import import_pictures, read_pictures
from tinytrain_dist.verbs.advise_weights import find_weights

BACKBONE = "mobilenet_v2_w0.1"
KINDS: tuple[tuple[str, Initialization], ...] = (("a", "meta_trained"), ("b", "pretrained"), ("c", "random"))
EVIL = "=cmd()<script>alert(1)<\\script>"


def pictures(folder: Path, *, classes: tuple[str, ...] = ("cup", "plate", EVIL), count: int = 6) -> Path:
    """Write classes of noise around a colour of their own."""
    draw = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = draw.integers(0, 90, size=(24, 24, 3)) + np.array([60 * number, 150 - 60 * number, 40])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


def weights(path: Path, *, initialization: Initialization = "meta_trained", backbone: str = BACKBONE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    card = CheckpointCard(initialization=initialization, resolution=32)
    save_checkpoint(path, build_backbone(backbone, resolution=32, seed=1), card)
    return path


def advise(images: Path, root: Path, *words: str) -> int:
    options = ("--executor", "serial", "--iterations", "1", "--tasks", "2", "--methods", "none,last_layer,tinytrain")
    return main(["advise", str(images), "--root", str(root), "--devices", "stm32h743,jetson_nano", *options, *words])


@pytest.mark.slow
def test_pictures_in_an_answer_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, root = pictures(tmp_path / "my <b>photos"), tmp_path / "runs"
    weights(root / "meta-small" / "weights.safetensors")
    (root / "meta-small" / "_SUCCESS").touch()
    assert advise(images, root, "--backbone", BACKBONE) == ExitCode.DONE  # no weights are shipped for it
    out, err = capsys.readouterr()
    flat = " ".join(out.split())
    for words in (
        "Take ", "Runner-up: ", "2 tasks were drawn from 18 pictures of 3 classes: 3 classes each, 3 pictures per",
        "nothing beyond these pictures", "The best choice of each device", f"({BACKBONE}, meta_trained)",
    ):  # fmt: skip
        assert words in flat, words
    assert "2 tasks computed" in err
    page = Path(out.rpartition("page: ")[2].strip())
    assert page.is_file() and page.is_relative_to(root) and "<script>alert(1)" not in page.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my <b>photos", "runs"]

    shutil.move(images, tmp_path / "moved")
    words = ("--backbone", BACKBONE, "--json", "--max-joules", "5J", "--max-ram", "512KiB")
    assert advise(tmp_path / "moved", root, *words) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert "nothing was computed again" in err
    found = json.loads(out)
    assert found["asked"]["limits"]["max_ram_bytes"] == 512 * 1024
    assert found["advised"]["energy_high_mj"] <= 5000 and found["advised"]["device"] == "stm32h743"
    assert found["domain"].startswith("pictures-") and found["page"] == str(page)


def test_what_is_imported_is_named_by_its_content(tmp_path: Path) -> None:
    images = pictures(tmp_path / "a")
    table = read_pictures(images)
    first = import_pictures(images, table, run_root=tmp_path / "runs")
    file = first.root / f"{first.name}.parquet"
    assert first.name == f"pictures-{table.content_hash()}" == f"pictures-{open_domain(file).content_hash}"
    assert file.is_relative_to(tmp_path / "runs") and first.class_sizes == (6, 6, 6) and first.notes == ()
    written = file.stat().st_mtime_ns
    assert import_pictures(images, table, run_root=tmp_path / "runs") == first and file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:-100])
    assert import_pictures(images, table, run_root=tmp_path / "runs") == first
    assert open_domain(file).content_hash == table.content_hash()


def test_pictures_judged_are_counted_from_the_tasks_drawn(tmp_path: Path) -> None:
    images, root = pictures(tmp_path / "a"), tmp_path / "runs"
    found = import_pictures(images, read_pictures(images), run_root=root)
    episodes = EpisodeSettings(way=3, shot=3, query=1)
    settings = SimulationSettings(
        weights=weights(tmp_path / "w.safetensors"), backbone=BACKBONE, resolution=32, domains=(found.name,),
        data_roots=(str(found.root),), split="all", episodes=episodes, num_tasks=4, methods=("none",),
        devices=("stm32h743",),
    )  # fmt: skip
    plan = plan_run(settings)
    drawn = [draw_episode(plan.domains[0], plan.setup.spec(found.name, index)).query for index in range(4)]
    assert [len(query) for query in drawn] == [3] * 4
    assert judged_pictures(plan, 1) == 3
    assert 3 < judged_pictures(plan, 4) == len({int(p) for query in drawn for own in query for p in own}) <= 12
    assert judged_pictures(plan, 200) == 18


def test_copies_and_left_out_files_are_said(tmp_path: Path) -> None:
    images = pictures(tmp_path / "a")
    shutil.copy(images / "cup" / "0.png", images / "cup" / "again.png")
    (images / "cup" / "notes.txt").write_text("no picture")
    (images / "empty").mkdir()
    found = import_pictures(images, read_pictures(images), run_root=tmp_path / "runs")
    text = " ".join(found.notes)
    assert "1 of 19 pictures are copies" in text and "1 entries that are no image" in text and "'empty'" in text


@pytest.mark.parametrize("what", ["picture", "class", "loop"])
def test_links_that_lead_out_are_refused(tmp_path: Path, what: str) -> None:
    outside, images = pictures(tmp_path / "outside"), pictures(tmp_path / "a")
    if what == "picture":
        (images / "cup" / "x.png").symlink_to(outside / "cup" / "0.png")
    elif what == "class":
        (images / "more").symlink_to(outside / "cup")
    else:
        (images / "cup" / "x.png").symlink_to(images / "cup" / "x.png")
    with pytest.raises(DataError, match="links that lead out of the folder: 1: "):
        read_pictures(images)


def test_a_damaged_picture_is_counted_and_named(tmp_path: Path) -> None:
    images = pictures(tmp_path / "a")
    (images / "cup" / "broken.png").write_bytes((images / "cup" / "0.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"images that cannot be used: 1: .*broken\.png"):
        import_pictures(images, read_pictures(images), run_root=tmp_path / "runs")
    assert list((tmp_path / "runs").rglob("*.parquet")) == []


def refused(capsys: pytest.CaptureFixture[str], code: ExitCode, images: Path, root: Path, *words: str) -> str:
    assert advise(images, root, *words) == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and not (root / "domains").exists()
    return err


def test_what_is_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, root, file = pictures(tmp_path / "a"), tmp_path / "runs", str(weights(tmp_path / "w.safetensors"))
    one = pictures(tmp_path / "one", classes=("cup",), count=2)
    use, bad = ExitCode.USAGE, ExitCode.BAD_INPUT
    assert "'make run'" in refused(capsys, use, images, root, "--backbone", BACKBONE)
    assert "or 'stm32h743'" in refused(capsys, bad, images, root, "--devices", "stm32h744", "--weights", file)
    assert "two such classes for any statement" in refused(capsys, bad, one, root, "--weights", file)
    assert "no such folder" in refused(capsys, bad, tmp_path / "none", root, "--weights", file)
    assert "--max-ram: found 'big'" in refused(capsys, use, images, root, "--max-ram", "big")
    assert "--tolerance" in refused(capsys, use, images, root, "--tolerance", "-1")
    assert "did you mean '--devices'" in refused(capsys, use, images, root, "--device", "x")
    assert "none twice" in refused(capsys, use, images, root, "--methods", "none,none")
    assert "unknown method" in refused(capsys, use, images, root, "--methods", "nome", "--weights", file)


def test_shipped_weights_come_before_the_newest(tmp_path: Path) -> None:
    shipped, root = tmp_path / "shipped", tmp_path / "runs"
    trained = weights(root / "meta-a" / "weights.safetensors")
    (trained.parent / "_SUCCESS").touch()
    mine = weights(shipped / f"{BACKBONE}.safetensors")

    def found(given: str | None = None, backbone: str | None = None) -> Path:
        return find_weights(given, backbone=backbone, run_root=root, shipped_folder=shipped).path

    assert found() == found(backbone=BACKBONE) == mine and found(str(trained)) == trained
    mine.rename(shipped / "other.safetensors")
    assert found(backbone=BACKBONE) == trained


def test_only_meta_trained_weights_are_the_newest(tmp_path: Path) -> None:
    for name, kind in KINDS:
        path = weights(tmp_path / name / "weights.safetensors", initialization=kind)
        (path.parent / "_SUCCESS").touch()
        os.utime(path, (0, ord(name)))
    nothing = tmp_path / "nothing"
    found = find_weights(None, backbone=None, run_root=tmp_path, shipped_folder=nothing)
    assert found.path.parent.name == "a"


def test_weights_are_the_newest_meta_trained_or_the_file_named(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    with pytest.raises(ConfigError, match="weights import"):
        find_weights(None, backbone=None, run_root=tmp_path, shipped_folder=nothing)
    unfinished = weights(tmp_path / "meta-a" / "weights.safetensors")
    with pytest.raises(ConfigError, match="no meta-trained weights"):
        find_weights(None, backbone=None, run_root=tmp_path, shipped_folder=nothing)
    (unfinished.parent / "_SUCCESS").touch()
    assert find_weights(None, backbone=None, run_root=tmp_path, shipped_folder=nothing).path == unfinished
    assert (
        find_weights(str(unfinished), backbone=BACKBONE, run_root=tmp_path, shipped_folder=nothing).backbone == BACKBONE
    )
    with pytest.raises(ConfigError, match="for backbone 'mcunet'"):
        find_weights(None, backbone="mcunet", run_root=tmp_path, shipped_folder=nothing)
    with pytest.raises(CheckpointError, match="--backbone asks for 'mcunet'"):
        find_weights(str(unfinished), backbone="mcunet", run_root=tmp_path, shipped_folder=nothing)


def test_every_board_is_asked_by_default() -> None:
    assert {"stm32h743", "rp2040", "jetson_nano"} < set(default_devices())
    assert all("--" not in name for name in default_devices())
