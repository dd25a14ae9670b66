"""From rows to profiles and back: names, inheritance, records, an empty re-fit, new devices, predictions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calibration_rows import INFERENCE, board_rows, cells_of, write_cells

from tinytrain_dist.cli import main
from tinytrain_dist.costs.calibration_record import PhaseCalibration, standing_of
from tinytrain_dist.costs.extrapolation import widened
from tinytrain_dist.costs.fit import fits_device, unsourced_limits
from tinytrain_dist.costs.intervals import factors
from tinytrain_dist.costs.latency_forms import form_of, group_of
from tinytrain_dist.costs.measurements import Operations, Setting, read_measurements, read_operations
from tinytrain_dist.costs.prediction import predict
from tinytrain_dist.costs.profile_files import load_profile, profile_names, read_profile
from tinytrain_dist.costs.profile_writer import header_of, own_keys, profile_text
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, ProfileError
from tinytrain_dist.foundation.paths import resource_folder
from tinytrain_dist.verbs.calibrate import read_config
from tinytrain_dist.verbs.calibrate_job import calibrate_files

SHIPPED = resource_folder("device_profiles")
DEVICES = {
    "stm32f746", "stm32h743", "stm32h747", "stm32h7a3", "stm32l4r5", "stm32u575", "nrf52840", "nrf5340", "rp2040",
    "esp32_s3", "max78000", "raspberry_pi_zero_2", "raspberry_pi_3b_plus", "raspberry_pi_4b", "raspberry_pi_5",
    "jetson_nano", "jetson_tx2_nx", "jetson_xavier_nx", "jetson_orin_nano",
}  # fmt: skip


def test_all_nineteen_devices_have_a_profile() -> None:
    assert len(DEVICES) == 19
    assert set(profile_names()) >= DEVICES


def test_every_setting_with_rows_has_a_profile_under_its_long_name() -> None:
    for row in read_measurements(INFERENCE):
        profile = load_profile(row.setting.long_name)
        found = (profile.runtime, profile.precision, profile.threads, profile.accelerator)
        assert found == (row.setting.runtime, row.setting.precision, row.setting.threads, row.setting.accelerator)
        assert profile.calibration.forward is not None
    with pytest.raises(ProfileError, match="unknown device profile"):
        load_profile("stm32h743--ncnn--int8--t1--cpu")


@pytest.mark.parametrize(
    ("name", "standing", "training"),
    [
        ("stm32h747", "calibrated", "estimate"),
        ("stm32h743", "calibrated", "estimate"),
        ("raspberry_pi_4b", "fitted", "estimate"),
        ("esp32_s3", "anchored", "estimate"),
        ("stm32f746", "anchored", "anchored"),
        ("rp2040", "estimate", "estimate"),
        ("raspberry_pi_zero_2--tinytrain-paper--fp32--t4--cpu", "estimate", "fitted"),
    ],
)
def test_standing_by_phase(name: str, standing: str, training: str) -> None:
    profile = load_profile(name)
    assert (profile.standing, profile.training_standing) == (standing, training)


@pytest.mark.parametrize(
    ("rows", "families", "error", "word"),
    [(0, 0, None, "estimate"), (1, 1, None, "anchored"), (2, 2, 0.1, "anchored"), (3, 3, 0.1, "fitted"),
     (5, 3, 0.1, "fitted"), (6, 2, 0.1, "calibrated"), (6, 1, None, "fitted"), (20, 1, None, "fitted")],
)  # fmt: skip
def test_the_word_rows_earn(rows: int, families: int, error: float | None, word: str) -> None:
    assert standing_of(rows=rows, families=families, leave_family_out_error=error) == word


def test_a_sibling_inherits_limits_but_no_calibration(tmp_path: Path) -> None:
    parent, child = load_profile("jetson_nano"), load_profile("jetson_nano--ncnn--fp16--t1--gpu")
    assert child.ram_bytes == parent.ram_bytes
    assert child.provenance_of("ram_bytes") == parent.provenance_of("ram_bytes")
    assert child.calibration != parent.calibration
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nextends: stm32h747\nram_bytes: 1000\n")
    mine = read_profile(path)
    assert (mine.ram_bytes, mine.standing) == (1000, "estimate")


@pytest.mark.parametrize("parent", ["nowhere", "mine", "[a]", "../../etc/passwd"])
def test_extending_what_is_not_there(tmp_path: Path, parent: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nextends: {parent}\n")
    with pytest.raises(ProfileError):
        read_profile(path)


def test_a_circle_of_profiles_ends(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nextends: b\n")
    (tmp_path / "b.yaml").write_text("name: b\nextends: a\n")
    with pytest.raises(ProfileError, match="extends"):
        load_profile("a", [tmp_path])


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [("interval_factor: ", "interval_factor: -", "factor of 1"), ("    rows: ", "    rws: ", "rws")],
)
def test_a_broken_record_is_refused(tmp_path: Path, old: str, new: str, word: str) -> None:
    path = tmp_path / "stm32h747.yaml"
    path.write_text((SHIPPED / "stm32h747.yaml").read_text().replace(old, new, 1))
    with pytest.raises(ProfileError, match=word):
        read_profile(path)


@pytest.mark.parametrize("name", profile_names())
def test_the_text_of_a_shipped_calibrated_profile_is_canonical(name: str) -> None:
    path = SHIPPED / f"{name}.yaml"
    if load_profile(name).calibration.forward or load_profile(name).calibration.training:
        assert header_of(path) + profile_text(own_keys(path)) == path.read_text()


@pytest.mark.slow
def test_a_refit_changes_no_byte(tmp_path: Path) -> None:
    copy = tmp_path / "device_profiles"
    shutil.copytree(SHIPPED, copy)
    rows, training, scales = (copy / "measurements" / f"{name}.csv" for name in ("inference", "training", "scales"))
    calibrate_files([rows], [training], scale_files=[scales], out=copy)
    for path in sorted(SHIPPED.glob("*.yaml")):
        assert (copy / path.name).read_text() == path.read_text(), path.name


def test_one_row_of_a_new_board_anchors_it_to_its_siblings(tmp_path: Path) -> None:
    """A board twice as slow as a Raspberry Pi 4B in every row, of which one is known."""
    rows = [
        row | {"latency_ms": str(2 * float(row["latency_ms"]))} for row in board_rows("slow", profile="raspberry_pi_4b")
    ]
    path = write_cells(tmp_path / "rows.csv", rows[:1])
    report = calibrate_files([path], [], out=None)
    assert [line["standing"] for line in report["profiles"]] == ["anchored"]
    assert "too few rows" in " ".join(report["profiles"][0]["notes"])
    profile = load_profile("slow", [tmp_path])
    assert profile.provenance_of("ram_bytes").kind == "unsourced"
    assert unsourced_limits(profile) == ["ram_bytes"], "another board's memory promises no fit"
    assert fits_device(profile, peak_bytes=(profile.ram_bytes - 1, profile.ram_bytes - 1), flash_bytes=0) == "uncertain"
    errors = []
    for row, operations in zip(rows, read_operations(write_cells(tmp_path / "ops.csv", rows)), strict=True):
        found = predict(profile, operations)
        assert found.latency_low_ms < float(row["latency_ms"]) < found.latency_high_ms
        errors.append(abs(found.latency_ms / float(row["latency_ms"]) - 1))
    assert sum(errors) / len(errors) < 0.25


def test_a_new_board_may_extend_a_profile_of_another_folder(tmp_path: Path) -> None:
    specs, out = tmp_path / "specs", tmp_path / "out"
    specs.mkdir()
    (specs / "parent.yaml").write_text("name: parent\nextends: stm32h743\nram_bytes: 300_000\n")
    path = write_cells(tmp_path / "rows.csv", board_rows("child", profile="stm32h747")[:3])
    calibrate_files([path], [], out=out, dirs=[specs], base="parent", siblings=False)
    assert load_profile("child", [out, specs]).ram_bytes == 300_000
    assert main(["devices", "check", str(out / "child.yaml"), "--dir", str(specs)]) == ExitCode.DONE
    assert main(["devices", "check", str(out / "child.yaml")]) == ExitCode.BAD_INPUT


@pytest.mark.slow
def test_rows_of_one_family_only_are_named(tmp_path: Path) -> None:
    rows = [row for row in board_rows("odd", profile="stm32h747") if row["family"] == "mobilenet_v1"]
    report = calibrate_files([write_cells(tmp_path / "rows.csv", rows)], [], out=None)["profiles"]
    assert report[0]["standing"] == "fitted"
    assert report[0]["leave_family_out_error"] is None
    assert "one model family only: not validated on another" in report[0]["notes"]


def test_far_outside_the_measured_range_is_flagged_and_wider() -> None:
    profile = load_profile("stm32h747")
    inside = read_operations(INFERENCE)[0]
    far = Operations(**{key: 100 * value for key, value in vars(inside).items()})
    near, beyond = predict(profile, inside), predict(profile, far)
    assert near.extrapolated == ()
    assert set(beyond.extrapolated) >= {"macs", "ops"}
    assert beyond.latency_high_ms / beyond.latency_ms > near.latency_high_ms / near.latency_ms


@pytest.mark.parametrize(("times", "word", "least", "most"), [(1, "calibrated", 1, 1.5), (12, "calibrated", 1.5, 2.01),
                                                              (100, "estimate", 3, 9)])  # fmt: skip
def test_far_beyond_the_rows_the_word_is_estimate(times: float, word: str, least: float, most: float) -> None:
    profile = load_profile("stm32h747")
    assert profile.calibration.forward is not None
    high = max(row.operations.macs for row in read_measurements(INFERENCE) if row.setting.profile == "stm32h747")
    inside = next(row.operations for row in read_measurements(INFERENCE) if row.model == "mbv1_0.5_224_imagenet")
    scale = times * high / inside.macs / 4 if times > 1 else 1.0
    found = predict(profile, replace(inside, macs_pointwise=scale * inside.macs_pointwise))
    assert found.standing == word
    assert least < found.latency_high_ms / found.latency_ms < most


def test_the_interval_grows_without_a_jump() -> None:
    at = np.array([1.0, 1.25, 1.3, 3.99, 4.0, 4.01, 16.0, 1e3])
    for factor in (1.1, 1.9, 2.0, 3.0):
        values = widened(factor, at)
        assert (np.diff(values) >= 0).all()
        assert values[5] / values[3] < 1.01
        assert values[3] <= max(factor, 2.0)
    assert widened(1.5, 16.0) == pytest.approx(4.0)


def test_intervals_follow_the_calibration() -> None:
    zero = load_profile("raspberry_pi_zero_2")
    estimate = factors(zero, phase="training")
    assert (estimate.compute_time, estimate.storage_time, estimate.compute_energy) == (2, 2, 2)
    assert zero.calibration.forward is not None
    forward = factors(zero, phase="forward")
    assert forward.compute_time == zero.calibration.forward.interval_factor < 2
    assert forward.storage_time == 2  # its bandwidth is assumed
    paper = factors(load_profile("raspberry_pi_zero_2--tinytrain-paper--fp32--t4--cpu"), phase="training")
    assert 1 < paper.compute_time == paper.storage_time < 2  # its bandwidth was fitted to the same rows


def test_a_record_knows_its_word() -> None:
    record = PhaseCalibration(form="linux_cpu", rows=1, families=1, interval_factor=2.0)
    assert record.standing == "anchored"


def test_predict_prints_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--device", "stm32h7a3", "--ops", str(INFERENCE), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == len(cells_of())
    assert set(rows[0]) >= {"latency_ms", "latency_low_ms", "latency_high_ms", "energy_mj", "standing"}
    assert rows[0]["energy_mj"] == pytest.approx(rows[0]["latency_ms"] * load_profile("stm32h7a3").active_power_w)
    assert any(row["extrapolated"] for row in rows)
    assert main(["predict", "--device", "stm32h747", "--ops", str(INFERENCE)]) == 0
    assert "energy unknown" in capsys.readouterr().out


def test_the_job_reads_keys_and_names_the_nearest() -> None:
    config = read_config(["rows=a.csv,b.csv", "siblings=false", "out=/tmp/x"])
    assert (config.rows, config.siblings, config.out) == (["a.csv", "b.csv"], False, "/tmp/x")
    with pytest.raises(ConfigError, match="did you mean 'rows'"):
        read_config(["row=a.csv"])
    with pytest.raises(ConfigError, match="_target_"):
        read_config(["_target_=os.system"])
    with pytest.raises(ConfigError, match="siblings"):
        read_config(["siblings=perhaps"])


def test_the_job_prints_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_cells(tmp_path / "rows.csv", board_rows("mine", profile="raspberry_pi_5"))
    assert main(["calibrate", f"rows={rows}", f"out={tmp_path / 'out'}", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["profiles"][0]["profile"] == "mine"
    assert read_profile(tmp_path / "out" / "mine.yaml").standing == "fitted"


@pytest.mark.parametrize(
    ("runtime", "precision", "threads", "accelerator", "form"),
    [("x-cube-ai-9", "int8", 1, "cpu", "microcontroller"), ("ncnn", "int8", 1, "cpu", "linux_cpu"),
     ("ncnn-20240820", "int8", 4, "cpu", "linux_cpu"), ("ncnn", "fp32", 1, "cpu", "linux_cpu"),
     ("ncnn", "fp16", 4, "gpu", "linux_gpu")],
)  # fmt: skip
def test_one_form_per_device_class(runtime: str, precision: str, threads: int, accelerator: str, form: str) -> None:
    setting = Setting(profile="x", runtime=runtime, precision=precision, threads=threads, accelerator=accelerator)
    assert form_of(setting).name == form


def test_versions_of_a_runtime_are_siblings() -> None:
    one, other = (
        Setting(profile="x", runtime=runtime, precision="int8", threads=1, accelerator="cpu")
        for runtime in ("x-cube-ai7.3", "stm32cube-ai-10")
    )
    assert group_of(one) == group_of(other)
