"""What several rows, files and phases say together: units, contradictions, repeats, and the word all this earns."""

from __future__ import annotations

from pathlib import Path

import pytest
from calibration_rows import TRAINING, Cells, board_rows, cells_of, write_cells

from tinytrain_dist.cli import main
from tinytrain_dist.costs.measurements import read_measurements, read_operations
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.training_runs import read_training_runs
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, ProfileError
from tinytrain_dist.verbs.calibrate_job import calibrate_files

GOOD = board_rows("mine", profile="stm32h747")
RUNS = [row for row in cells_of(TRAINING) if row["profile"] == "raspberry_pi_zero_2"]
SCALES = TRAINING.parent / "scales.csv"


def times(row: Cells, factor: float, *, column: str = "latency_ms") -> Cells:
    return row | {column: f"{factor * float(row[column]):.6g}"}


def timed(rows: list[Cells], phase: str, factor: float) -> list[Cells]:
    return [times(row, factor) | {"phase": phase} for row in rows]


def calibrated(tmp_path: Path, rows: list[Cells]) -> dict[str, dict[str, object]]:
    report = calibrate_files([write_cells(tmp_path / "rows.csv", rows)], [], out=tmp_path, siblings=False)
    return {line["phase"]: line for line in report["profiles"]}


def test_repeats_that_only_contradict_each_other_are_named(tmp_path: Path) -> None:
    """Both within a quarter of the first row, not of each other."""
    path = write_cells(tmp_path / "rows.csv", [GOOD[0], times(GOOD[0], 1.2), times(GOOD[0], 0.82)])
    with pytest.raises(ProfileError, match=r"lines 3 and 4: .* took 113\.208 and 77\.3588 ms"):
        read_measurements(path)


def test_rows_that_contradict_each_other_across_files_are_named(tmp_path: Path) -> None:
    first = write_cells(tmp_path / "first.csv", GOOD[:4])
    second = write_cells(tmp_path / "second.csv", [times(GOOD[0], 2.0)])
    out = tmp_path / "out"
    with pytest.raises(ProfileError, match=r"first\.csv, line 2 and .*second\.csv, line 2: .* 94\.34 and 188\.68 ms"):
        calibrate_files([first, second], [], out=out)
    assert not out.exists()


def test_a_file_in_seconds_beside_one_in_milliseconds(tmp_path: Path) -> None:
    first = write_cells(tmp_path / "first.csv", GOOD[:4])
    second = write_cells(tmp_path / "second.csv", [times(row, 1e-3) for row in GOOD[4:7]])
    with pytest.raises(ProfileError, match=r"second\.csv, line 2.*mixed units"):
        read_measurements(first, second)


def test_repeating_rows_earns_no_better_word(tmp_path: Path) -> None:
    three = [GOOD[0], GOOD[8], GOOD[11]]
    once, twice = calibrated(tmp_path, three)["forward"], calibrated(tmp_path, three * 2)["forward"]
    assert (twice["rows"], twice["standing"]) == (once["rows"], once["standing"]) == (3, "fitted")
    assert twice["leave_one_out_error"] == pytest.approx(once["leave_one_out_error"], rel=0.5)


def test_rows_of_the_optimizer_say_nothing_about_a_backward_pass(tmp_path: Path) -> None:
    rows = timed(GOOD[:6], "forward", 1.0)
    optimizer = [row | {"phase": "optimizer", "latency_ms": str(2e-5 * float(row["weights"]))} for row in GOOD[3:11]]
    found = calibrated(tmp_path, rows + optimizer)["training"]
    assert (found["rows"], found["standing"], found["interval_factor"]) == (0, "estimate", 2.0)


def test_half_of_a_backward_pass_validates_nothing(tmp_path: Path) -> None:
    rows = timed(GOOD, "forward", 1.0)
    half = calibrated(tmp_path, rows + timed(GOOD, "input_grad", 3.0))["training"]
    assert half["standing"] == "fitted" and float(str(half["interval_factor"])) >= 2.0
    both = calibrated(tmp_path, rows + timed(GOOD, "input_grad", 3.0) + timed(GOOD, "weight_grad", 3.0))["training"]
    assert both["standing"] == "calibrated" and float(str(both["interval_factor"])) < 2.0


@pytest.mark.parametrize("phase", ["input_grad", "weight_grad", "fisher"])
def test_training_phases_in_another_unit(tmp_path: Path, phase: str) -> None:
    forward, backward = timed(GOOD[:6], "forward", 1.0), timed(GOOD[:5], phase, 3.0)
    with pytest.raises(ProfileError, match=rf"line 13: .*other {phase} rows.*mixed units"):
        calibrated(tmp_path, [*forward, *backward, *timed(GOOD[5:6], phase, 3e-3)])
    with pytest.raises(ProfileError, match=rf"line 8: a MAC of {phase} takes 0\.00.* times a forward MAC"):
        calibrated(tmp_path, forward + timed(GOOD[:5], phase, 3e-3))
    assert not list(tmp_path.glob("*.yaml"))


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_energy_in_another_unit(tmp_path: Path, factor: float) -> None:
    rows = board_rows("mine", profile="stm32l4r5")
    with pytest.raises(ProfileError, match=r"line 4: energy_mj over latency_ms.* W; allowed: 0\.0005 to 5 W"):
        calibrated(tmp_path, [*rows[:2], times(rows[2], factor, column="energy_mj")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "change", "words"),
    [
        ("forward", {"latency_ms": "0.135"}, "ns per MAC"),
        ("step", {"latency_ms": "0.546"}, "no cost of a backward MAC between 0.05 and 50"),
        ("step", {"model": "resnet18"}, "unknown backbone 'resnet18'"),
    ],
)
def test_scales_in_another_unit_or_of_an_unknown_network(
    phase: str, change: Cells, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(r for r in cells_of(SCALES) if r["profile"] == "stm32f746" and r["phase"] == phase)
    path = write_cells(tmp_path / "scales.csv", [row | change])
    assert main(["calibrate", f"scales={path}", f"out={tmp_path / 'out'}"]) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert words in error and "line 2" in error
    assert not list(tmp_path.glob("out/*.yaml"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        ([row | {"status": "rejected"} for row in RUNS], "no rows"),
        ([row | {"precision": "int4"} for row in RUNS], "line 2: precision: found 'int4'"),
        ([row | {"accelerator": "npu"} for row in RUNS], "line 2: accelerator: found 'npu'"),
        ([row | {"threads": "0.5"} for row in RUNS], "line 2, column 'threads'"),
        ([RUNS[0] | {"profile": "../../etc/passwd"}], "line 2: profile '../../etc/passwd'"),
        ([RUNS[0] | {"status": "guessed"}], "line 2: status"),
        ([*RUNS[:9], times(RUNS[9], 1 / 60, column="time_s")], "line 11: fisher_s 20.1 exceeds time_s"),
        ([RUNS[1] | {"time_s": "0.48", "energy_j": ""}, *RUNS[2:]], "line 2: time_s 0.48"),
        ([times(RUNS[0], 1e-3, column="energy_j"), *RUNS[1:]], "line 2: energy_j over time_s is 0.000815 W"),
        ([*RUNS, RUNS[0] | {"time_s": "900"}], "lines 2 and 12: mcunet full_train"),
    ],
    ids=["empty", "rejected", "precision", "accelerator", "threads", "path", "status", "minutes", "kilo", "kilojoules",
         "contradiction"],
)  # fmt: skip
def test_training_runs_that_are_refused_leave_nothing_behind(
    rows: list[Cells], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_cells(tmp_path / "runs.csv", rows or RUNS)
    if not rows:
        path.write_text(",".join(RUNS[0]) + "\n")
    assert main(["calibrate", f"training={path}", f"out={tmp_path / 'out'}"]) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert str(path) in error and words in error
    assert not list(tmp_path.glob("out/*.yaml"))


def test_a_rejected_run_is_not_fitted(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "runs.csv", [*RUNS[1:], RUNS[0] | {"time_s": "9", "status": "rejected"}])
    assert len(read_training_runs(path)) == len(RUNS) - 1


@pytest.mark.slow
def test_a_row_added_to_a_shipped_setting_stands_beside_the_shipped_rows(tmp_path: Path) -> None:
    shipped = next(row for row in cells_of() if row["profile"] == "stm32l4r5" and row["family"] == "mobilenet_v1")
    bigger = {name: str(2 * float(shipped[name])) for name in ("macs_pointwise", "latency_ms", "energy_mj")}
    path = write_cells(tmp_path / "rows.csv", [shipped | bigger | {"model": "mine", "source": "my bench"}])
    report = calibrate_files([path], [], out=tmp_path)["profiles"]
    assert [(line["phase"], line["rows"]) for line in report] == [("forward", 4), ("energy", 4)]
    profile = load_profile("stm32l4r5", [tmp_path])
    for name in ("pointwise_ns_per_mac", "active_power_w"):
        assert (
            "my bench" in profile.provenance_of(name).source and shipped["source"] in profile.provenance_of(name).source
        )


def test_operations_without_a_row(tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    path.write_text(",".join(GOOD[0]) + "\n")
    with pytest.raises(ConfigError, match="no rows; allowed: one row per network"):
        read_operations(path)
