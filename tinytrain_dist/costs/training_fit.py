"""Whole training runs of one setting -> its factors: forward, backward, Fisher, swap, power.

    time = images x (a F + r a B) + batches x b (ops + ops_back) + fisher
         + passes x max(0, peak + system - RAM) / bandwidth

with F, B the forward and backward MACs of an image. An operation is launched once per batch. Six unknowns and few rows:
priors on the logarithms, wide, say where the rows do not. System and bandwidth stay what the profile says unless a row
exceeds the RAM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import t as student_t

from tinytrain_dist.costs.calibration import CONFIDENCE, PRIOR_ROWS, rounded
from tinytrain_dist.costs.calibration_record import WHOLE_RUNS, PhaseCalibration
from tinytrain_dist.costs.hierarchical_fit import Array
from tinytrain_dist.costs.measurements import Setting
from tinytrain_dist.costs.training_runs import TrainingRun, runs_hash

UNKNOWNS = (
    "ns_per_mac", "layer_overhead_ns", "backward_cost_ratio", "fisher_cost_ratio", "os_overhead_bytes",
    "storage_bandwidth_bytes_per_s",
)  # fmt: skip
_PRIOR = np.log([10.0, 5e6, 2.0, 1.5, 150e6, 20e6])
_WIDTH = np.array([1.0, 1.0, 0.4, 0.5, 0.7, 1.0])
_ROW_SIGMA = 0.1
_POWER_PRIOR = np.log([2.0, 0.5])
_POWER_WIDTH = np.array([0.3, 0.5])
_PRIOR_SPREAD = 0.15


@dataclass(frozen=True, kw_only=True)
class RunTimes:
    """Seconds of one run by phase."""

    compute_s: float
    fisher_s: float
    swap_s: float

    @property
    def total_s(self) -> float:
        """All phases."""
        return self.compute_s + self.fisher_s + self.swap_s

    @property
    def swap_share(self) -> float:
        """Share of the time that is swap."""
        return self.swap_s / self.total_s


@dataclass(frozen=True, kw_only=True)
class UnseenRun:
    """A run predicted from the rows of the other backbones."""

    run: TrainingRun
    times: RunTimes
    energy_j: float | None

    @property
    def error(self) -> float:
        """Relative error of the time."""
        return self.times.total_s / self.run.time_s - 1

    @property
    def energy_error(self) -> float | None:
        """Relative error of the energy."""
        if self.energy_j is None or self.run.energy_j is None:
            return None
        return self.energy_j / self.run.energy_j - 1


@dataclass(frozen=True)
class TrainingFit:
    """Fitted unknowns of one setting, by name, and active and I/O power where the rows state energy."""

    values: Array
    ram_bytes: int
    powers_w: Array | None

    def times(self, run: TrainingRun) -> RunTimes:
        """Return the predicted seconds of ``run`` by phase."""
        return _times(self.values, run, self.ram_bytes)

    def energy_j(self, run: TrainingRun) -> float | None:
        """Return the predicted energy of ``run``."""
        if self.powers_w is None:
            return None
        times = self.times(run)
        return float(self.powers_w[0] * (times.compute_s + times.fisher_s) + self.powers_w[1] * times.swap_s)

    def swaps(self, runs: Sequence[TrainingRun]) -> bool:
        """Return whether any of ``runs`` exceeds the RAM, so that the rows say something about swapping."""
        return any(self.times(run).swap_s > 0 for run in runs)


@dataclass(frozen=True, kw_only=True)
class CalibratedTraining:
    """Profile fields fitted to whole runs, their records, and the cross-backbone predictions behind the errors."""

    setting: Setting
    board: str
    coefficients: dict[str, float | int | str]
    training: PhaseCalibration
    training_energy: PhaseCalibration | None
    unseen: tuple[UnseenRun, ...]
    fit: TrainingFit


def _times(logs: Array, run: TrainingRun, ram_bytes: int) -> RunTimes:
    per_mac, per_op, backward, fisher, system, bandwidth = np.exp(logs)
    image = per_mac * (run.forward_macs + backward * run.backward_macs)
    launches = per_op * (run.forward_ops + run.backward_ops)
    inspected = 0.0
    if run.fisher_macs:
        inspected = run.images_per_iteration * per_mac * (run.forward_macs + backward * run.fisher_macs)
        inspected += run.batches / run.iterations * per_op * (run.forward_ops + run.fisher_ops)
    missing = max(0.0, run.peak_memory_bytes + system - ram_bytes)
    return RunTimes(
        compute_s=float((run.images * image + run.batches * launches) * 1e-9),
        fisher_s=float(fisher * inspected * 1e-9),
        swap_s=float(run.swapped_passes * missing / bandwidth),
    )


def fit_training(runs: Sequence[TrainingRun], *, ram_bytes: int, idle_power_w: float = 0.0) -> TrainingFit:
    """Fit the unknowns to ``runs`` of one setting; no power is below ``idle_power_w``."""

    def residuals(logs: Array) -> Array:
        found = [(logs - _PRIOR) / _WIDTH]
        for run in runs:
            times = _times(logs, run, ram_bytes)
            found.append(np.array([(times.total_s / run.time_s - 1) / _ROW_SIGMA]))
            if run.fisher_s:
                found.append(np.array([(times.fisher_s / run.fisher_s - 1) / _ROW_SIGMA]))
        return np.concatenate(found)

    logs = least_squares(residuals, _PRIOR, method="lm", xtol=1e-12, ftol=1e-12, gtol=1e-12).x
    return TrainingFit(logs, ram_bytes, _fit_powers(runs, logs, ram_bytes, idle_power_w))


def _fit_powers(runs: Sequence[TrainingRun], logs: Array, ram_bytes: int, idle_power_w: float) -> Array | None:
    with_energy = [run for run in runs if run.energy_j is not None]
    if not with_energy:
        return None
    shares = [_times(logs, run, ram_bytes).swap_share for run in with_energy]
    table = np.array([
        [(1 - share) * run.time_s / run.energy_j, share * run.time_s / run.energy_j]
        for run, share in zip(with_energy, shares, strict=True)
        if run.energy_j is not None
    ])  # fmt: skip

    def watts(logs: Array) -> Array:
        return np.asarray(np.maximum(np.exp(logs), idle_power_w))

    def residuals(powers: Array) -> Array:
        return np.concatenate([(powers - _POWER_PRIOR) / _POWER_WIDTH, (table @ watts(powers) - 1) / _ROW_SIGMA])

    return watts(least_squares(residuals, _POWER_PRIOR, method="lm").x)


def calibrate_training(runs: Sequence[TrainingRun], *, ram_bytes: int, idle_power_w: float = 0.0) -> CalibratedTraining:
    """Return the factors of one setting; its errors are those of predicting each backbone from the others."""
    fit = fit_training(runs, ram_bytes=ram_bytes, idle_power_w=idle_power_w)
    unseen = _unseen(runs, ram_bytes, idle_power_w)
    energies = [item.energy_error for item in unseen if item.energy_error is not None]
    return CalibratedTraining(
        setting=runs[0].setting,
        board=runs[0].board,
        coefficients=_fields(fit, runs),
        training=_record(runs, [item.error for item in unseen]),
        training_energy=_record([run for run in runs if run.energy_j is not None], energies) if energies else None,
        unseen=unseen,
        fit=fit,
    )


def _unseen(runs: Sequence[TrainingRun], ram_bytes: int, idle_power_w: float) -> tuple[UnseenRun, ...]:
    found = []
    for backbone in sorted({run.backbone for run in runs}):
        others = [run for run in runs if run.backbone != backbone]
        if others:
            fit = fit_training(others, ram_bytes=ram_bytes, idle_power_w=idle_power_w)
            mine = [run for run in runs if run.backbone == backbone]
            found += [UnseenRun(run=run, times=fit.times(run), energy_j=fit.energy_j(run)) for run in mine]
    return tuple(found)


def _record(runs: Sequence[TrainingRun], errors: Sequence[float]) -> PhaseCalibration:
    squares = [math.log1p(error) ** 2 for error in errors]
    weight = PRIOR_ROWS + len(squares)
    sigma = math.sqrt((PRIOR_ROWS * _PRIOR_SPREAD**2 + sum(squares)) / weight)
    factor = math.exp(float(student_t.ppf((1 + CONFIDENCE) / 2, weight)) * sigma)
    return PhaseCalibration(
        form=WHOLE_RUNS,
        rows=len(runs),
        families=len({run.backbone for run in runs}),
        leave_family_out_error=rounded(float(np.mean(np.abs(errors))), digits=3) if errors else None,
        largest_error=rounded(float(np.max(np.abs(errors))), digits=3) if errors else None,
        interval_factor=rounded(factor if errors else max(2.0, factor), digits=3),
        rows_hash=runs_hash(runs),
        measured_range={
            name: [min(getattr(run, name) for run in runs), max(getattr(run, name) for run in runs)]
            for name in ("forward_macs", "backward_macs")
        },
    )


def _fields(fit: TrainingFit, runs: Sequence[TrainingRun]) -> dict[str, float | int | str]:
    value = {name: rounded(float(np.exp(log))) for name, log in zip(UNKNOWNS, fit.values, strict=True)}
    classes = ("standard", "pointwise", "depthwise", "linear")
    fields: dict[str, float | int | str] = {f"{kind}_ns_per_mac": value["ns_per_mac"] for kind in classes}
    fields |= {"weight_ns_per_byte": 0.0, "activation_ns_per_byte": 0.0, "pass_overhead_us": 0.0}
    fields["overhead_per"] = "batch"
    fields["layer_overhead_us"] = rounded(value["layer_overhead_ns"] / 1e3)
    fields["input_grad_cost_ratio"] = fields["weight_grad_cost_ratio"] = value["backward_cost_ratio"]
    fields["fisher_cost_ratio"] = value["fisher_cost_ratio"]
    if fit.swaps(runs):
        fields["os_overhead_bytes"] = int(value["os_overhead_bytes"])
        fields["storage_bandwidth_bytes_per_s"] = int(value["storage_bandwidth_bytes_per_s"])
    if fit.powers_w is not None:
        fields["active_power_w"] = rounded(float(fit.powers_w[0]), digits=3)
        fields["io_power_w"] = rounded(float(fit.powers_w[1]), digits=3)
    return fields
