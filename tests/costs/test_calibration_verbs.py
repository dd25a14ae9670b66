"""``tinytrain calibrate`` and ``predict`` as a user meets them: an invented board, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calibration_rows import Cells, board_rows, cells_of, write_cells

from tinytrain_dist.cli import main
from tinytrain_dist.costs.profile_files import load_profile, profile_names, read_profile
from tinytrain_dist.foundation.errors import ExitCode

GOOD = board_rows("bad_board", profile="stm32h747")
OPERATIONS = ("macs_conv", "macs_pointwise", "macs_depthwise", "macs_linear", "weights", "activations_in_out", "ops")
SPECS = """\
name: invented
extends: stm32h743
board: "Invented board"
ram_bytes: 400000
active_power_w: 0.2
provenance:
  ram_bytes: {kind: documented, source: "its data sheet"}
  active_power_w: {kind: measured, source: "our meter"}
"""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def scaled(name: str, factor: float, *, runtime: str) -> list[Cells]:
    """Rows of a board of its own: an STM32H743's, so many times slower."""
    rows = [row for row in cells_of() if row["profile"] == "stm32h743" and row["runtime"] == "tinyengine"]
    return [
        row | {"profile": name, "board": name, "runtime": runtime, "latency_ms": str(factor * float(row["latency_ms"]))}
        for row in rows
    ]


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the specs of a board nobody shipped, calibrated to four of its six rows."""
    folder = tmp_path_factory.mktemp("invented")
    (folder / "invented.yaml").write_text(SPECS)
    rows = write_cells(folder / "rows.csv", scaled("invented", 3.0, runtime="own-engine")[:4])
    assert main(["calibrate", f"rows={rows}", f"dirs={folder}", "--json"]) == 0
    return folder


def test_an_invented_board_is_listed_under_its_documented_name(
    invented: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    rows = {row["name"]: row for row in run(capsys, "devices", "list", "--dir", str(invented))}
    own = rows["invented--own-engine--int8--t1--cpu"]
    assert (own["standing"], own["training_standing"]) == ("fitted", "estimate")
    assert (own["ram_bytes"], own["runtime"]) == (400_000, "own-engine")
    assert rows["invented"]["standing"] == "estimate"  # its default runtime has no rows


def test_an_invented_board_predicts_the_rows_it_has_not_seen(
    invented: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen = scaled("invented", 3.0, runtime="own-engine")[4:]
    path = write_cells(tmp_path / "ops.csv", [{name: row[name] for name in OPERATIONS} for row in unseen])
    name = "invented--own-engine--int8--t1--cpu"
    found = run(capsys, "predict", "--device", name, "--ops", str(path), "--dir", str(invented))["rows"]
    for row, predicted in zip(unseen, found, strict=True):
        truth = float(row["latency_ms"])
        assert predicted["latency_low_ms"] <= truth <= predicted["latency_high_ms"]
        assert predicted["latency_ms"] == pytest.approx(truth, rel=0.35)
        assert predicted["energy_mj"] == pytest.approx(0.2 * predicted["latency_ms"])
        assert predicted["standing"] == "fitted"


def test_costs_price_any_plan_on_an_invented_board(invented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("costs", "--backbone", "mcunet", "--method", "sparse_update", "--dir", str(invented))
    found = run(capsys, *words, "--device", "invented--own-engine--int8--t1--cpu")
    assert found["latency_low_ms"] < found["latency_ms"] < found["latency_high_ms"]
    assert found["standing"] == "estimate" and found["fits"] in ("yes", "no", "uncertain")


def test_predict_prints_exactly_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    rows = Path(__file__).parents[2] / "device_profiles" / "measurements" / "inference.csv"
    found = run(capsys, "predict", "--device", "stm32h747", "--ops", str(rows))
    assert set(found) == {"device", "rows"}
    assert set(found["rows"][0]) == {
        "latency_ms", "latency_low_ms", "latency_high_ms", "energy_mj", "energy_low_mj", "energy_high_mj", "standing",
        "extrapolated", "extrapolated_totals",
    }  # fmt: skip
    flagged = [row for row in found["rows"] if row["extrapolated"]]
    assert flagged and all(row["extrapolated_totals"] for row in flagged)


def test_power_modes_are_settings_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = board_rows("jetson_nano", profile="jetson_nano", threads="4", accelerator="cpu")
    fast = [row | {"power_mode": "MAXN", "latency_ms": str(0.7 * float(row["latency_ms"]))} for row in rows]
    default = [row | {"power_mode": "10W"} for row in rows]
    path = write_cells(tmp_path / "rows.csv", [*default, *fast])
    report = run(capsys, "calibrate", f"rows={path}", "siblings=false")["profiles"]
    names = {line["profile"] for line in report}
    assert names == {"jetson_nano", "jetson_nano--ncnn--fp32--t4--cpu--MAXN"}
    assert load_profile("jetson_nano--ncnn--fp32--t4--cpu--10W", [tmp_path]).name == "jetson_nano"
    assert load_profile("jetson_nano--ncnn--fp32--t4--cpu", [tmp_path]).name == "jetson_nano"
    assert load_profile("jetson_nano--ncnn--fp32--t4--cpu--MAXN", [tmp_path]).power_mode == "MAXN"


def test_every_shipped_profile_is_named_as_documented() -> None:
    for name in profile_names():
        profile = load_profile(name)
        device, *rest = name.split("--")
        own = [profile.runtime, profile.precision, f"t{profile.threads}", profile.accelerator]
        assert rest in ([], own, [*own, profile.power_mode]), name
        assert load_profile(device).name == device


def without(column: str) -> list[Cells]:
    return [{key: value for key, value in row.items() if key != column} for row in GOOD]


def changed(column: str, value: str) -> list[Cells]:
    return [row | {column: value} if place == 1 else row for place, row in enumerate(GOOD)]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (without("latency_ms"), ["'latency_ms' is missing"]),
        (changed("latency_ms", "0"), ["line 3", "'latency_ms'", "above 0"]),
        (changed("latency_ms", "94 ms"), ["line 3", "'94 ms'", "no unit"]),
        (changed("latency_ms", "0.09434"), ["line 3", "mixed units"]),
        (changed("profile", "../../etc/passwd"), ["line 3", "etc/passwd"]),
        (changed("precision", "int4"), ["line 3", "'int4'"]),
        ([*GOOD, GOOD[0] | {"latency_ms": "200"}], ["lines 2 and 17", "94.34 and 200"]),
        ([], ["no rows"]),
    ],
    ids=["column", "zero", "unit", "mixed_units", "path", "precision", "duplicates", "empty"],
)
def test_rows_that_are_refused_leave_nothing_behind(
    rows: list[Cells], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    if rows:
        write_cells(path, rows)
    else:
        path.write_text(",".join(GOOD[0]) + "\n")
    out = tmp_path / "out"
    assert main(["calibrate", f"rows={path}", f"out={out}"]) == ExitCode.BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    for word in [str(path), *words]:
        assert word in captured.err
    assert not list(tmp_path.glob("**/*.yaml"))


def test_few_rows_one_family_and_contradictions_are_named_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_family = [row | {"profile": "odd"} for row in GOOD if row["family"] == "mobilenet_v1"]
    slow = [row for threads in ("1", "4") for row in board_rows("slow", profile="raspberry_pi_5", threads=threads)]
    rows = [*board_rows("few", profile="raspberry_pi_4b")[:1], *one_family, *slow]
    path = write_cells(tmp_path / "rows.csv", rows)
    report = run(capsys, "calibrate", f"rows={path}", "siblings=false")["profiles"]
    notes = {line["profile"]: " ".join(line["notes"]) for line in report}
    words = {line["profile"]: line["standing"] for line in report}
    assert "too few rows for the form" in notes["few"] and words["few"] == "anchored"
    assert "one model family only" in notes["odd"] and words["odd"] == "fitted"
    assert any("contradictory, kept out of the fit: mobilenet" in text for text in notes.values())


def test_rows_of_mixed_runtimes_never_share_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"profile": "chip"} for row in cells_of() if row["profile"] == "stm32h743"]
    path = write_cells(tmp_path / "rows.csv", rows)
    report = run(capsys, "calibrate", f"rows={path}", "siblings=false")["profiles"]
    assert len(report) == 4 and {line["rows"] for line in report} == {6}
    runtimes = [read_profile(path).runtime for path in tmp_path.glob("chip*.yaml")]
    assert sorted(runtimes) == ["cmsis-nn", "tflm", "tinyengine", "x-cube-ai7.3"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ram_byts: 1\n", "ram_bytes"), ("ram_bytes: 256KB\n", "256KB"), ("ram_bytes: -1\n", "-1"),
        ("active_power_w: .nan\n", "nan"), ("threads: 1\nthreads: 2\n", "duplicate"),
        ("_target_: os.system\n", "_target_"), ("soc: !!python/object:os.system {}\n", "python/object"),
    ],
)  # fmt: skip
def test_a_broken_profile_is_refused_by_every_verb(
    text: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text(f"name: broken\nextends: stm32h743\n{text}")
    ops = Path(__file__).parents[2] / "device_profiles" / "measurements" / "inference.csv"
    for words in (
        ["devices", "check", str(tmp_path / "broken.yaml")],
        ["costs", "--backbone", "mcunet", "--method", "none", "--device", "broken", "--dir", str(tmp_path)],
        ["predict", "--device", "broken", "--dir", str(tmp_path), "--ops", str(ops)],
    ):
        assert main(words) == ExitCode.BAD_INPUT
        error = capsys.readouterr().err
        assert "broken.yaml" in error and word in error
