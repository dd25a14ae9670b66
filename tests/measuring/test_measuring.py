"""A tiny measurement: rows, resume, damage named, and the chain to a profile whose times follow what was measured."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinytrain_dist.cli import main
from tinytrain_dist.costs.latency import fisher_pass_ms, forward_ms, image_pass, optimizer_step_ms
from tinytrain_dist.costs.measured_phases import fit_amounts, fit_measured_phases
from tinytrain_dist.costs.measurements import Measurement, read_measurements
from tinytrain_dist.costs.phase_amounts import (
    AMOUNTS,
    MEASURED_PHASES,
    amounts_of,
    nanoseconds,
    weight_grad_amounts,
)
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, ProfileError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan
from tinytrain_dist.measuring.design import designed_cases, random_plan
from tinytrain_dist.measuring.energy_sensors import find_meter
from tinytrain_dist.measuring.machine import read_machine
from tinytrain_dist.measuring.measurement import measure
from tinytrain_dist.measuring.row_file import read_rows
from tinytrain_dist.measuring.settings import MeasureSettings
from tinytrain_dist.verbs.calibrate_job import calibrate_files

TINY = MeasureSettings(
    backbones=("mcunet",), resolutions=(32,), batch=1, num_layers=2, rounds=1, min_sample_ms=0.01
)  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measured") / "rows.csv"
    measure(path, settings=TINY)
    return path


def test_every_designed_case_has_one_row(measured: Path, tmp_path: Path) -> None:
    rows = read_rows(measured)
    cases = designed_cases(TINY, tmp_path)
    assert sorted((row["phase"], row["model"]) for row in rows) == sorted(case.key for case in cases)
    assert {row["phase"] for row in rows} == {"forward", "load", *MEASURED_PHASES}
    assert all(float(row["latency_ms"]) > 0 and row["timer"] == "thread_cpu" for row in rows)
    assert read_measurements(measured)[0].setting.profile == "this_host"


def test_the_design_is_a_function_of_its_seed(tmp_path: Path) -> None:
    keys = [case.key for case in designed_cases(TINY, tmp_path)]
    assert keys == [case.key for case in designed_cases(TINY, tmp_path)]
    assert len(set(keys)) == len(keys)


def test_resume_adds_only_what_is_missing(measured: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = measured.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-3]))
    found = measure(path, settings=TINY)
    assert (found.num_rows, found.num_added) == (len(lines) - 1, 3)
    assert path.read_text().startswith("".join(lines[:-3]))
    assert measure(path, settings=TINY).num_added == 0


def test_a_half_written_file_is_named(measured: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(measured.read_text()[:-20])
    with pytest.raises(ProfileError, match=r"rows\.csv.*cut off"):
        measure(path, settings=TINY)


def test_a_damaged_cell_is_named(measured: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = list(csv.DictReader(measured.read_text().splitlines()))
    rows[1]["latency_ms"] = "fast"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ProfileError, match=r"rows\.csv, line 3, column 'latency_ms': found 'fast'"):
        measure(path, settings=TINY)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ProfileError, match="no file of 'tinytrain measure'"):
        measure(path, settings=TINY)


def test_rows_of_another_batch_do_not_mix(measured: Path) -> None:
    with pytest.raises(ConfigError, match="batch '1', not '2'"):
        measure(measured, settings=MeasureSettings(**{**vars(TINY), "batch": 2}))


@pytest.mark.parametrize(("key", "value"), [("rounds", "0"), ("batch", "0"), ("resolutions", "[]"), ("backbones", "x")])
def test_bad_settings_are_refused_before_anything_runs(key: str, value: str, tmp_path: Path) -> None:
    assert main(["measure", f"out={tmp_path / 'rows.csv'}", f"{key}={value}"]) == ExitCode.USAGE
    assert not (tmp_path / "rows.csv").exists()


def with_made_up_times(path: Path, *, coefficients: dict[str, float]) -> Path:
    """Write rows of three families whose times follow ``coefficients`` exactly."""
    rows = list(csv.DictReader(path.read_text().splitlines()))
    made = []
    for scale, family in ((1.0, "a"), (1.7, "b"), (2.9, "c")):
        for row in rows:
            counts = {name: float(row[name] or 0) * (scale if name != "passes" else 1) for name in AMOUNTS}
            ns = max(nanoseconds(coefficients, counts), 1.0)  # loading counts nothing of some forms
            cells = {name: repr(value) for name, value in counts.items()}
            model = f"{family}-{row['model']}"
            made.append(row | cells | {"family": family, "model": model, "latency_ms": repr(ns / 1e6)})
    target = path.with_name("made_up.csv")
    with target.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    return target


@pytest.fixture(scope="module")
def profile(measured: Path) -> DeviceProfile:
    costs = {"macs_conv": 0.1, "macs_pointwise": 0.05, "macs_depthwise": 0.2, "weights": 0.3, "activations_in_out": 1.0}
    path = with_made_up_times(measured, coefficients=costs | {"ops": 500.0, "activations_gathered": 3.0})
    report = calibrate_files([path], [], out=measured.parent, siblings=False)["profiles"]
    assert [line["phase"] for line in report] == ["forward", "training"]  # three whole passes: too few for a form
    return load_profile("this_host", [measured.parent])


def test_calibrated_phases_are_priced_by_their_own_form(profile: DeviceProfile) -> None:
    assert set(profile.phases) >= {"input_grad", "weight_grad", "optimizer"}
    assert (profile.standing, profile.training_standing) == ("calibrated", "calibrated")
    graph = layer_graph("mcunet", 48)
    plan = random_plan(graph, ("test",))
    expected = nanoseconds(profile.phases["weight_grad"], weight_grad_amounts(graph, plan)) / 1e6
    assert image_pass(graph, plan, profile).weight_grad_ms == pytest.approx(expected)


def test_predicted_times_grow_with_channels_resolution_and_depth(profile: DeviceProfile) -> None:
    graph = layer_graph("mcunet", 64)
    for index in (12, 13, 14):
        layer = graph.layer(index)
        counts = sorted({1, layer.out_channels // 4, layer.out_channels // 2, layer.out_channels - 1})
        plans = [
            UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=index, channels=tuple(range(count))),))
            for count in counts
        ]
        times = [image_pass(graph, plan, profile).weight_grad_ms for plan in plans]
        assert times == sorted(times)
        steps = [optimizer_step_ms(graph, plan, profile, optimizer="adam") for plan in plans]
        assert steps == sorted(steps)
    by_resolution = [forward_ms(layer_graph("mcunet", size), profile) for size in (32, 64, 96, 128)]
    assert by_resolution == sorted(by_resolution)
    by_depth = [
        image_pass(graph, UpdatePlan(backbone="mcunet", bias_layers=(start,)), profile).input_grad_ms
        for start in range(len(graph.layers))
    ]
    assert by_depth == sorted(by_depth, reverse=True)
    assert fisher_pass_ms(graph, graph.last_blocks(6), profile) >= fisher_pass_ms(graph, graph.last_blocks(2), profile)


def test_a_form_is_found_again(measured: Path) -> None:
    costs = {"macs_pointwise": 0.05, "macs_depthwise": 0.4, "activations_masked": 2.0, "ops": 900.0}
    rows = read_measurements(with_made_up_times(measured, coefficients=costs))
    own = [row for row in rows if row.phase == "input_grad"]
    values = fit_amounts(own, AMOUNTS)
    predicted = np.array([values @ [row.amount(name) for name in AMOUNTS] for row in own])
    assert predicted == pytest.approx([row.latency_ms * 1e6 for row in own], rel=0.02)
    assert (values >= 0).all()


def test_loading_has_a_form_of_its_own_once_whole_networks_were_loaded(measured: Path) -> None:
    rows = [row for row in read_measurements(measured) if row.phase == "load"]
    made = [
        replace(
            row, family=family, latency_ms=4.0 + 9e-6 * weights, operations=replace(row.operations, weights=weights)
        )
        for row in rows
        for family in ("a", "b")
        for weights in (300e3, 370e3, 475e3)
    ]
    values = fit_amounts(made, amounts_of("load"))
    assert values == pytest.approx([4e6, 9.0])


def test_few_rows_are_left_to_the_single_factors(measured: Path) -> None:
    rows: tuple[Measurement, ...] = read_measurements(measured)
    assert fit_measured_phases(rows[:5]) is None


def test_rapl_is_read_and_wraps_around(tmp_path: Path) -> None:
    package = tmp_path / "sys/class/powercap/intel-rapl:0"
    package.mkdir(parents=True)
    (package / "max_energy_range_uj").write_text("999999\n")
    (package / "energy_uj").write_text("999000\n")
    meter = find_meter(tmp_path)
    assert meter is not None and meter.name == "rapl"
    before = meter.start()
    (package / "energy_uj").write_text("4000\n")
    assert meter.joules(before, 1.0) == pytest.approx(0.005)


def test_ina_power_times_the_span(tmp_path: Path) -> None:
    sensor = tmp_path / "sys/class/hwmon/hwmon3"
    sensor.mkdir(parents=True)
    for name, text in (("name", "ina3221"), ("in1_input", "5000"), ("curr1_input", "1200")):
        (sensor / name).write_text(text)
    meter = find_meter(tmp_path)
    assert meter is not None and meter.name == "ina"
    assert meter.joules(meter.start(), 2.0) == pytest.approx(12.0)


def test_rows_state_the_power_that_a_sensor_showed_and_its_energy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A board at 5 V and 1.2 A; its clock and governor stand in every row, progress goes to stderr."""
    root = tmp_path / "root"
    sensor, clock = root / "sys/class/hwmon/hwmon0", root / "sys/devices/system/cpu/cpu0/cpufreq"
    for folder, files in (
        (sensor, {"name": "ina219", "in1_input": "5000", "curr1_input": "1200"}),
        (clock, {"scaling_cur_freq": "1500000", "scaling_governor": "schedutil"}),
    ):
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    cases = [case for case in designed_cases(TINY, tmp_path) if case.phase in ("forward", "weight_grad")][:4]
    found = measure(tmp_path / "rows.csv", settings=TINY, cases=cases, root=root)
    rows = read_rows(tmp_path / "rows.csv")
    assert len(rows) == 4
    for row in rows:
        assert (row["clock_hz"], row["governor"]) == ("1500000000", "schedutil")
        assert float(row["active_power_w"]) == pytest.approx(6.0)
        assert float(row["energy_mj"]) == pytest.approx(6.0 * float(row["latency_ms"]), rel=1e-4)
    assert any("ina" in notice for notice in found.notices)
    assert "4/4" in capsys.readouterr().err


def test_nothing_is_guessed_where_nothing_can_be_read(tmp_path: Path) -> None:
    machine = read_machine(tmp_path)
    assert find_meter(tmp_path) is None
    assert (machine.clock_hz, machine.governor, machine.ram_bytes) == (None, None, None)
    assert any("clock: none" in notice for notice in machine.notices())


def test_clock_and_governor_are_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_cur_freq").write_text("1800000\n")
    (folder / "scaling_governor").write_text("performance\n")
    machine = read_machine(tmp_path)
    assert (machine.clock_hz, machine.governor, machine.notices()) == (1_800_000_000, "performance", [])
