"""Devices of which one or two rows are published: their profiles reproduce these rows, and say ``anchored``."""

from __future__ import annotations

from pathlib import Path

import pytest
from calibration_rows import cells_of, write_cells

from tinytrain_dist.costs.measurements import read_measurements
from tinytrain_dist.costs.prediction import predict
from tinytrain_dist.costs.profile_files import load_profile, load_profiles
from tinytrain_dist.costs.scale_fit import step_ms
from tinytrain_dist.foundation.errors import ProfileError
from tinytrain_dist.foundation.paths import resource_folder
from tinytrain_dist.verbs.calibrate_job import calibrate_files

SCALES = resource_folder("device_profiles") / "measurements" / "scales.csv"
ROWS = read_measurements(SCALES)
PROXIED_MS = {"rp2040": 1000 / 0.707 * 64 / 133}
"""Visual wake words on another board (NUCLEO-G0B1RE, 64 MHz) by clock: no row of this device, so no standing."""


def test_every_scale_reproduces_its_row() -> None:
    scaled = {p.name for p in load_profiles() if "scale: " in p.provenance_of("pointwise_ns_per_mac").source}
    rows = {row.setting.profile: row for row in ROWS if row.phase == "forward"}
    assert scaled == rows.keys() | PROXIED_MS.keys()
    for name, row in rows.items():
        assert predict(load_profile(name), row.operations).latency_ms == pytest.approx(row.latency_ms, rel=0.003), name
    for name, expected in PROXIED_MS.items():
        found = predict(load_profile(name), rows["nrf5340"].operations).latency_ms
        assert found == pytest.approx(expected, rel=0.003)
        assert load_profile(name).standing == "estimate"


def test_published_rows_earn_their_word() -> None:
    for row in ROWS:
        profile = load_profile(row.setting.profile)
        assert (profile.training_standing if row.phase == "step" else profile.standing) == "anchored"


def test_one_cost_of_a_backward_mac_explains_both_published_steps() -> None:
    profile = load_profile("stm32f746")
    steps = [row for row in ROWS if row.phase == "step"]
    assert [row.latency_ms for row in steps] == [546, 373]
    for row in steps:
        assert step_ms(row, profile, profile.input_grad_cost_ratio) == pytest.approx(row.latency_ms, rel=0.01)
        assert step_ms(row, profile, 2.8) < 0.9 * row.latency_ms


def test_a_users_row_scales_the_profile_it_names(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nextends: esp32_s3\n")
    before = load_profile("mine", [tmp_path])
    own = next(row for row in cells_of(SCALES) if row["profile"] == "esp32_s3")
    path = write_cells(tmp_path / "rows.csv", [own | {"profile": "mine", "latency_ms": "108"}])
    report = calibrate_files([], [], scale_files=[path], out=tmp_path)["profiles"]
    after = load_profile("mine", [tmp_path])
    assert [line["standing"] for line in report] == ["anchored"] == [after.standing]
    assert after.pointwise_ns_per_mac == pytest.approx(2 * before.pointwise_ns_per_mac, rel=0.002)
    assert "scale: " in after.provenance_of("pointwise_ns_per_mac").source
    text = (tmp_path / "mine.yaml").read_text()
    calibrate_files([], [], scale_files=[path], out=tmp_path)
    assert (tmp_path / "mine.yaml").read_text() == text
    with pytest.raises(ProfileError, match="no such profile"):
        calibrate_files([], [], scale_files=[write_cells(path, [own | {"profile": "new"}])], out=tmp_path)
