"""Files of measurements that must not be fitted silently: named, with what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from calibration_rows import INFERENCE, Cells, board_rows, cells_of, write_cells

from tinytrain_dist.costs.latency_forms import form_of
from tinytrain_dist.costs.measurements import by_setting, read_measurements, read_operations
from tinytrain_dist.costs.units_check import PLAUSIBLE_NS_PER_MAC, check_units
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, ProfileError
from tinytrain_dist.verbs.calibrate_job import calibrate_files

GOOD = [row for row in cells_of() if row["profile"] == "stm32h747"]


def changed(column: str, value: str, *, row: int = 1) -> list[Cells]:
    rows = [dict(cells) for cells in GOOD]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize("column", ["latency_ms", "family", "macs_depthwise", "runtime", "source"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = write_cells(tmp_path / "rows.csv", [{k: v for k, v in row.items() if k != column} for row in GOOD])
    with pytest.raises(ProfileError, match=f"'{column}' is missing") as caught:
        read_measurements(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == ExitCode.BAD_INPUT


@pytest.mark.parametrize("value", ["0", "-3", "nan", "inf", "", "94 ms", "94ms", "0.09s", "94,3"])
def test_a_latency_that_is_no_positive_number_of_milliseconds(tmp_path: Path, value: str) -> None:
    path = write_cells(tmp_path / "rows.csv", changed("latency_ms", value))
    with pytest.raises(ProfileError, match=r"line 3, column 'latency_ms'.*above 0"):
        read_measurements(path)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("macs_conv", "-1", "macs_conv"),
        ("macs_conv", "1.7M", "plain number"),
        ("threads", "0", "1 or more"),
        ("precision", "int4", "int4"),
        ("accelerator", "npu", "cpu, gpu"),
        ("profile", "../../etc/passwd", "etc/passwd"),
        ("profile", "", "'profile' is empty"),
        ("status", "guessed", "measured"),
        ("energy_mj", "-1", "energy_mj"),
    ],
)
def test_a_broken_cell_names_line_and_column(tmp_path: Path, column: str, value: str, words: str) -> None:
    path = write_cells(tmp_path / "rows.csv", changed(column, value))
    with pytest.raises(ProfileError, match="line 3") as caught:
        read_measurements(path)
    assert words in str(caught.value)


def test_one_row_in_seconds_among_milliseconds(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "rows.csv", changed("latency_ms", "0.29075"))
    with pytest.raises(ProfileError, match=r"line 3.*mixed units"):
        read_measurements(path)


def test_one_of_two_rows_in_seconds(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "rows.csv", changed("latency_ms", "0.29075")[:2])
    with pytest.raises(ProfileError, match="mixed units"):
        read_measurements(path)


@pytest.mark.parametrize(("profile", "factor"), [("stm32h747", 1e-3), ("stm32h747", 1e3), ("raspberry_pi_4b", 1e-3),
                                                 ("jetson_nano", 1e-3), ("raspberry_pi_4b", 1e3)])  # fmt: skip
def test_a_whole_file_in_another_unit(tmp_path: Path, profile: str, factor: float) -> None:
    rows = board_rows("mine", profile=profile, accelerator="gpu" if "jetson" in profile else "cpu")
    wrong = [row | {"latency_ms": str(factor * float(row["latency_ms"]))} for row in rows]
    path = write_cells(tmp_path / "rows.csv", wrong)
    with pytest.raises(ProfileError, match=r"rows.csv, line 2: mine.*ns per MAC.*millisec"):
        calibrate_files([path], [], out=tmp_path)
    assert not (tmp_path / "mine.yaml").exists()


def test_no_shipped_row_looks_like_another_unit() -> None:
    rows = read_measurements(INFERENCE)
    check_units("shipped", rows, siblings=rows)
    for setting, own in by_setting(rows).items():
        low, high = PLAUSIBLE_NS_PER_MAC[form_of(setting).name]
        assert all(10 * low < row.latency_ms * 1e6 / row.operations.macs < high / 10 for row in own)


@pytest.mark.slow
def test_a_row_a_hundred_times_off_is_named_and_costs_the_word(tmp_path: Path) -> None:
    rows = [row | {"profile": "mine", "board": "mine"} for row in GOOD]
    rows[2]["latency_ms"] = str(100 * float(rows[2]["latency_ms"]))
    found = calibrate_files([write_cells(tmp_path / "rows.csv", rows)], [], out=tmp_path)["profiles"][0]
    assert any("check its unit" in note and rows[2]["model"] in note for note in found["notes"])
    assert found["interval_factor"] > 2
    assert found["standing"] == "estimate"


@pytest.mark.slow
def test_rows_of_two_runtimes_under_one_name_are_split_and_said_so(tmp_path: Path) -> None:
    rows = [row | {"profile": "mine", "runtime": ("tinyengine", "tflm")[place % 2]} for place, row in enumerate(GOOD)]
    found = calibrate_files([write_cells(tmp_path / "rows.csv", rows)], [], out=tmp_path)["profiles"]
    assert len(found) == 2
    for line in found:
        assert any("2 runtimes (tflm, tinyengine): a profile each" in note for note in line["notes"])
    one = calibrate_files([write_cells(tmp_path / "one.csv", board_rows("own", profile="stm32h747"))], [], out=tmp_path)
    assert not any("runtimes" in note for line in one["profiles"] for note in line["notes"])


def test_contradictory_duplicates_name_both_lines(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "rows.csv", [*GOOD, GOOD[0] | {"latency_ms": "200"}])
    with pytest.raises(ProfileError, match=r"lines 2 and 17.*94.34 and 200"):
        read_measurements(path)


def test_a_rejected_row_stays_on_file_and_contradicts_nobody(tmp_path: Path) -> None:
    rejected = GOOD[0] | {"latency_ms": "200", "status": "rejected"}
    assert len(read_measurements(write_cells(tmp_path / "rows.csv", [*GOOD, rejected]))) == 16


def test_an_empty_a_ragged_and_a_binary_file(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text(",".join(GOOD[0]) + "\n")
    with pytest.raises(ProfileError, match="no rows"):
        read_measurements(empty)
    ragged = tmp_path / "ragged.csv"
    ragged.write_text(",".join(GOOD[0]) + "\na,b\n")
    with pytest.raises(ProfileError, match="line 2"):
        read_measurements(ragged)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="cannot be read"):
        read_measurements(binary)


def test_a_column_that_stands_there_twice(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "rows.csv", GOOD)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",latency_ms", *(line + ",1" for line in lines[1:])]))
    with pytest.raises(ProfileError, match="twice"):
        read_measurements(path)


def test_rows_of_several_runtimes_are_several_settings(tmp_path: Path) -> None:
    rows = [row for row in cells_of() if row["profile"] == "stm32h743"]
    names = {row.setting.long_name for row in read_measurements(write_cells(tmp_path / "rows.csv", rows))}
    assert names == {
        f"stm32h743--{runtime}--int8--t1--cpu" for runtime in ("tflm", "cmsis-nn", "x-cube-ai7.3", "tinyengine")
    }


def test_operations_need_no_results_but_their_totals(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k.startswith("macs") or k in ("weights", "activations_in_out", "ops")}
            for row in board_rows("x", profile="jetson_nano")]  # fmt: skip
    assert len(read_operations(write_cells(tmp_path / "ops.csv", rows))) == 5
    short = [{k: v for k, v in row.items() if k != "ops"} for row in rows]
    with pytest.raises(ConfigError, match="'ops' is missing"):
        read_operations(write_cells(tmp_path / "short.csv", short))
