"""Rows of single training phases: factors found again, wide priors where rows are few, prices that follow."""

from __future__ import annotations

from pathlib import Path

import pytest
from calibration_rows import Cells, board_rows, write_cells

from tinytrain_dist.costs.measurements import read_measurements
from tinytrain_dist.costs.phase_fit import FACTORS, calibrate_phases, fit_factor
from tinytrain_dist.costs.prediction import compute_ns, traffic_ns
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.foundation.errors import ProfileError
from tinytrain_dist.verbs.calibrate_job import calibrate_files

PI = load_profile("raspberry_pi_4b")


def phase_rows(tmp_path: Path, phase: str, ratio: float) -> list[Cells]:
    """Return rows of ``phase`` on a board that is the Raspberry Pi 4B, with backward MACs at ``ratio``."""
    rows = board_rows("mine", profile="raspberry_pi_4b", threads="4")
    found = []
    for row, measured in zip(rows, read_measurements(write_cells(tmp_path / "t.csv", rows)), strict=True):
        ns = ratio * compute_ns(PI, measured.operations) + traffic_ns(PI, measured.operations)
        found.append(row | {"phase": phase, "latency_ms": str(ns / 1e6)})
    return found


def test_factors_are_found_again(tmp_path: Path) -> None:
    cells = phase_rows(tmp_path, "input_grad", 1.7) + phase_rows(tmp_path, "weight_grad", 3.1)
    found = calibrate_phases(read_measurements(write_cells(tmp_path / "rows.csv", cells)), PI)
    assert found.coefficients["input_grad_cost_ratio"] == pytest.approx(1.7, rel=0.03)
    assert found.coefficients["weight_grad_cost_ratio"] == pytest.approx(3.1, rel=0.03)
    assert found.training.standing == "calibrated"
    assert found.training.leave_family_out_error is not None and found.training.leave_family_out_error < 0.05


def test_without_rows_the_prior_stands() -> None:
    assert fit_factor(FACTORS["input_grad"], [], PI) == pytest.approx(PI.input_grad_cost_ratio)


def test_the_prior_is_the_profiles_own() -> None:
    stm32f746 = load_profile("stm32f746")
    assert fit_factor(FACTORS["input_grad"], [], stm32f746) == pytest.approx(3.82)
    assert stm32f746.storage_bandwidth_bytes_per_s == 0
    assert fit_factor(FACTORS["load"], [], stm32f746) == pytest.approx(2e7)


def test_fitting_again_shrinks_to_the_same_prior(tmp_path: Path) -> None:
    forward = [row | {"phase": "forward"} for row in board_rows("mine", profile="raspberry_pi_4b", threads="4")]
    path = write_cells(tmp_path / "rows.csv", forward + phase_rows(tmp_path, "input_grad", 1.7)[:1])
    calibrate_files([path], [], out=None)
    first = (tmp_path / "mine.yaml").read_text()
    assert f"priors: {{input_grad_cost_ratio: {PI.input_grad_cost_ratio}}}" in first
    calibrate_files([path], [], out=None)
    assert (tmp_path / "mine.yaml").read_text() == first


def test_forward_and_phase_rows_make_one_profile(tmp_path: Path) -> None:
    forward = [row | {"phase": "forward"} for row in board_rows("mine", profile="raspberry_pi_4b", threads="4")]
    path = write_cells(tmp_path / "rows.csv", forward + phase_rows(tmp_path, "input_grad", 1.7))
    report = calibrate_files([path], [], out=None)["profiles"]
    assert [line["phase"] for line in report] == ["forward", "training"]
    profile = load_profile("mine", [tmp_path])
    assert profile.calibration.forward is not None
    assert (profile.standing, profile.training_standing) == ("fitted", "fitted")
    assert profile.provenance_of("input_grad_cost_ratio").kind == "derived"


def test_phase_rows_alone_are_refused(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "rows.csv", phase_rows(tmp_path, "input_grad", 1.7))
    with pytest.raises(ProfileError, match="no forward rows"):
        calibrate_files([path], [], out=None)


def test_an_unknown_phase_is_named(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "rows.csv", phase_rows(tmp_path, "backward", 1.7))
    with pytest.raises(ProfileError, match="phase: found 'backward'"):
        read_measurements(path)
