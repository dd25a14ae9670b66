"""Replay: every row of a run comes out again, bit for bit; what is altered or has moved is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_simulation import Raises, add_method, run, tiny_settings

from tinytrain_dist.adaptation.settings import SelectionSettings
from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main
from tinytrain_dist.costs.schemes import Scheme
from tinytrain_dist.foundation.errors import ExitCode

SCHEME = Scheme(backbone="mobilenet_v2_w0.1", input_shares=((50, 0.5),), num_last_biases=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run from a checkpoint file, with a scheme and a device ratio: everything the identity can hold."""
    root = tmp_path_factory.mktemp("runs")
    backbone = build_backbone("mobilenet_v2_w0.1", resolution=32, seed=3)
    save_checkpoint(root / "own.safetensors", backbone, CheckpointCard(initialization="random", resolution=32))
    settings = tiny_settings(
        weights=root / "own.safetensors",
        methods=("raw_pixels", "none", "last_layer", "sparse_update", "tinytrain"),
        selection=SelectionSettings(inspect_blocks=2, scheme=SCHEME, device_ratios=(("jetson_nano", "auto"),)),
    )
    yield run(settings, root, run_id="mine").folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, with its checkpoint beside it, that a test may spoil."""
    shutil.copytree(made.parent, tmp_path / "runs")
    return tmp_path / "runs" / "mine"


def replayed(folder: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["replay", str(folder), "--json", *words]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str, code: ExitCode) -> str:
    assert main(["replay", str(folder), *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and "Traceback" not in err
    return err


def alter(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the stored rows in place."""
    path = next((folder / "results").glob("*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


TASK = "signs/test/fixed-3w2s3q/s0/1"


@pytest.mark.slow
def test_every_row_of_a_run_comes_out_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = pq.read_table(made / "results").to_pylist()
    count = 0
    for task in sorted({row["task_id"] for row in stored}):
        found = replayed(made, capsys, "--task", task)
        assert found["equal"] and all(row["columns"] == len(stored[0]) - 2 for row in found["rows"])
        count += len(found["rows"])
    assert count == len(stored) == 2 * 2 * 5 * 3


def test_one_row_is_chosen_by_method_and_device(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = replayed(made, capsys, "--task", TASK, "--method", "tinytrain", "--device", "jetson_nano")
    assert [(row["method"], row["device"]) for row in found["rows"]] == [("tinytrain", "jetson_nano")]
    assert main(["replay", str(made), "--task", TASK, "--method", "none", "--device", "jetson_nano"]) == 0
    out = capsys.readouterr().out
    assert "none on jetson_nano" in out and f"1 of 1 rows of {TASK} are equal" in out


def test_an_altered_row_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(row: dict[str, Any]) -> None:
        if row["task_id"] == TASK and row["method"] == "tinytrain" and row["device"] == "jetson_nano":
            row["latency_ms"] += 1e-9
            row["accuracy_after"] = 1.5
        row["host_ms"] += 5.0  # the machine's own: not compared

    alter(folder, change)
    found = replayed(folder, capsys, "--task", TASK, code=ExitCode.LOCKED)
    wrong = {(row["method"], row["device"]): [d["column"] for d in row["differences"]] for row in found["rows"]}
    assert wrong.pop(("tinytrain", "jetson_nano")) == ["accuracy_after", "latency_ms"]
    assert not any(wrong.values()) and not found["equal"]
    assert main(["replay", str(folder), "--task", TASK]) == ExitCode.LOCKED
    assert "accuracy_after: stored 1.5, replayed " in capsys.readouterr().out


def test_a_failed_row_says_how_it_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_method(monkeypatch, Raises("unlucky", domain="signs"))
    made = run(tiny_settings(methods=("unlucky",), num_tasks=1), tmp_path).folder
    task = TASK[:-1] + "0"
    assert replayed(made, capsys, "--task", task)["rows"][0]["status"] == "error"  # fails again in the same words
    add_method(monkeypatch, Raises("unlucky", domain="flags"))
    assert main(["replay", str(made), "--task", task]) == ExitCode.LOCKED
    assert "(stored as error)" in capsys.readouterr().out


def test_weights_are_found_by_content(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    record["config"]["backbone"] = {"weights": str(tmp_path / "gone.safetensors")}
    (folder / "run.json").write_text(json.dumps(record))
    words = ("--task", TASK, "--method", "none")
    assert replayed(folder, capsys, *words)["equal"]  # beside the run lies a file of that content

    (folder.parent / "own.safetensors").rename(tmp_path / "moved.safetensors")
    err = refused(folder, capsys, *words, code=ExitCode.BAD_INPUT)
    assert "gone.safetensors (no such file)" in err and "--weights" in err and record["identity"]["checkpoint"] in err
    assert replayed(folder, capsys, *words, "--weights", str(tmp_path / "moved.safetensors"))["equal"]

    other = build_backbone("mobilenet_v2_w0.1", resolution=32, seed=4)
    save_checkpoint(tmp_path / "other.safetensors", other, CheckpointCard(initialization="random", resolution=32))
    err = refused(folder, capsys, *words, "--weights", str(tmp_path / "other.safetensors"), code=ExitCode.BAD_INPUT)
    assert "other.safetensors (" in err


def spoil(folder: Path, *keys: str, value: Any) -> None:
    record = json.loads((folder / "run.json").read_text())
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("keys", "value", "code", "words"),
    [
        (("identity", "domain_hashes", "signs"), "0" * 16, ExitCode.BAD_INPUT, "domain 'signs' has changed"),
        (("grid", "devices", "jetson_nano"), "0" * 16, ExitCode.BAD_INPUT, "profile 'jetson_nano' has changed"),
        (("identity", "result_version"), 1, ExitCode.LOCKED, "result_version: 1 there"),
        (("identity", "finetune", "warp"), 1, ExitCode.LOCKED, "FineTuneSettings does not know warp"),
        (("identity", "seed"), 1, ExitCode.STORAGE, "damaged"),
        (("identity", "backbone"), "mobilenet_v9", ExitCode.USAGE, "mobilenet_v9"),
        (("identity", "episodes"), {"way": "many"}, ExitCode.STORAGE, "identity"),
        (("identity",), None, ExitCode.STORAGE, "identity: missing"),
    ],
)  # fmt: skip
def test_what_has_changed_since_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], keys: tuple[str, ...], value: Any, code: ExitCode, words: str
) -> None:
    spoil(folder, *keys, value=value)
    assert words in refused(folder, capsys, "--task", TASK, code=code)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "signs/test/fixed-3w2s3q/s0/9"), "--task: unknown task 'signs/test/fixed-3w2s3q/s0/9'"),
        (("--task", TASK, "--method", "tinytrian"), "did you mean 'tinytrain'"),
        (("--task", TASK, "--device", "jetson_nanu"), "did you mean 'jetson_nano'"),
        ((), "--task"),
    ],
)
def test_unknown_names_say_the_nearest(
    made: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert said in refused(made, capsys, *words, code=ExitCode.USAGE)
