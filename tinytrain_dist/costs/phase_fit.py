"""Rows of single training phases -> the factors a profile prices them by.

Each factor is a geometric mean of what its rows say, shrunk to a wide prior: what the profile states before it has
rows of the phase (3.82 forward MACs for a backward MAC on microcontrollers, from the STM32F746's two published steps),
kept in the record, so that fitting again shrinks to the same. ``FACTORS`` holds what counts where a profile states 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from tinytrain_dist.costs.calibration import CONFIDENCE, PRIOR_ROWS, rounded
from tinytrain_dist.costs.calibration_record import ESTIMATE_FACTOR, PhaseCalibration
from tinytrain_dist.costs.latency_forms import NS_PER_MS, NS_PER_US
from tinytrain_dist.costs.measurements import ELEMENT_BYTES, Measurement, rows_hash
from tinytrain_dist.costs.prediction import compute_ns, traffic_ns
from tinytrain_dist.costs.profiles import DeviceProfile

BACKWARD = ("input_grad", "weight_grad")
"""The phases a training step is made of: their rows earn the word for training, and only both validate it."""
PRIOR_WIDTH = 0.7
ROW_SIGMA = 0.2
_LEAST_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One factor: its profile field, its prior, the factor a row states, and the time it predicts for a row."""

    field: str
    prior: float
    stated: Callable[[Measurement, DeviceProfile], float]
    predicted_ns: Callable[[Measurement, DeviceProfile, float], float]


@dataclass(frozen=True, kw_only=True)
class CalibratedPhases:
    """Factors by profile field, the rows behind each, and the record of all phases together."""

    coefficients: dict[str, float | int]
    num_rows: dict[str, int]
    training: PhaseCalibration


def _backward_ratio(row: Measurement, profile: DeviceProfile) -> float:
    measured = row.latency_ms * NS_PER_MS
    compute = max(measured - traffic_ns(profile, row.operations), _LEAST_SHARE * measured)
    return compute / compute_ns(profile, row.operations)


def _backward_ns(row: Measurement, profile: DeviceProfile, ratio: float) -> float:
    return ratio * compute_ns(profile, row.operations) + traffic_ns(profile, row.operations)


def _fisher_base_ns(row: Measurement, profile: DeviceProfile) -> float:
    launch = profile.pass_overhead_us * NS_PER_US
    return compute_ns(profile, row.operations) + traffic_ns(profile, row.operations) + launch


def _per_weight(row: Measurement, profile: DeviceProfile) -> float:
    return row.latency_ms * NS_PER_MS / max(1.0, row.operations.weights)


def _bandwidth(row: Measurement, profile: DeviceProfile) -> float:
    return row.operations.weights * ELEMENT_BYTES[profile.precision] / (row.latency_ms / 1e3)


def _load_ns(row: Measurement, profile: DeviceProfile, bandwidth: float) -> float:
    return row.operations.weights * ELEMENT_BYTES[profile.precision] / bandwidth * 1e9


FACTORS = {
    "input_grad": Factor(
        field="input_grad_cost_ratio", prior=2.8, stated=_backward_ratio, predicted_ns=_backward_ns
    ),
    "weight_grad": Factor(
        field="weight_grad_cost_ratio", prior=2.8, stated=_backward_ratio, predicted_ns=_backward_ns
    ),
    "fisher": Factor(
        field="fisher_cost_ratio",
        prior=1.0,
        stated=lambda row, profile: row.latency_ms * NS_PER_MS / _fisher_base_ns(row, profile),
        predicted_ns=lambda row, profile, ratio: ratio * _fisher_base_ns(row, profile),
    ),
    "optimizer": Factor(
        field="optimizer_ns_per_weight",
        prior=10.0,
        stated=_per_weight,
        predicted_ns=lambda row, profile, ns: ns * row.operations.weights,
    ),
    "load": Factor(
        field="storage_bandwidth_bytes_per_s", prior=2e7, stated=_bandwidth, predicted_ns=_load_ns
    ),
}  # fmt: skip


def calibrate_phases(rows: Sequence[Measurement], profile: DeviceProfile) -> CalibratedPhases:
    """Return the factors of the phases that ``rows`` of one setting time, given its forward coefficients."""
    coefficients: dict[str, float | int] = {}
    num_rows: dict[str, int] = {}
    priors: dict[str, float] = {}
    errors: dict[str, list[float]] = {"row": [], "family": []}
    for phase, factor in FACTORS.items():
        own = [row for row in rows if row.phase == phase]
        if own:
            priors[factor.field] = prior_of(factor, profile)
            value = rounded(fit_factor(factor, own, profile))
            coefficients[factor.field] = int(value) if factor.field.endswith("_per_s") else value
            num_rows[factor.field] = len(own)
            if phase in BACKWARD:
                for kind, found in _unseen_errors(factor, own, profile).items():
                    errors[kind] += found
    return CalibratedPhases(coefficients=coefficients, num_rows=num_rows, training=_record(rows, errors, priors))


def prior_of(factor: Factor, profile: DeviceProfile) -> float:
    """Return what a factor is shrunk to: the profile's own value from before any row, the general one where it is 0."""
    training = profile.calibration.training
    kept = {} if training is None else training.priors
    stated = kept.get(factor.field, float(getattr(profile, factor.field)))
    return stated if stated > 0 else factor.prior


def fit_factor(factor: Factor, rows: Sequence[Measurement], profile: DeviceProfile) -> float:
    """Return the factor that ``rows`` state, shrunk to ``prior_of`` in logarithms; the prior itself without rows."""
    prior_weight, row_weight = PRIOR_WIDTH**-2, ROW_SIGMA**-2
    logs = [math.log(factor.stated(row, profile)) for row in rows]
    total = prior_weight * math.log(prior_of(factor, profile)) + row_weight * sum(logs)
    return math.exp(total / (prior_weight + row_weight * len(logs)))


def _unseen_errors(factor: Factor, rows: Sequence[Measurement], profile: DeviceProfile) -> dict[str, list[float]]:
    def error(row: Measurement, others: Sequence[Measurement]) -> float:
        predicted = factor.predicted_ns(row, profile, fit_factor(factor, others, profile))
        return predicted / (row.latency_ms * NS_PER_MS) - 1

    several = len({row.family for row in rows}) > 1
    by_family = [error(row, [other for other in rows if other.family != row.family]) for row in rows]
    return {
        "row": [error(row, [other for other in rows if other is not row]) for row in rows if len(rows) > 1],
        "family": by_family if several else [],
    }


def _record(rows: Sequence[Measurement], errors: dict[str, list[float]], priors: dict[str, float]) -> PhaseCalibration:
    """Return the record of backward rows; a factor that only the prior states leaves the interval an estimate's."""
    backward = [row for row in rows if row.phase in BACKWARD]
    is_whole = {row.phase for row in backward} == set(BACKWARD)
    worst = errors["family"] or errors["row"]
    weight = PRIOR_ROWS + len(worst)
    squares = PRIOR_ROWS * ROW_SIGMA**2 + sum(math.log1p(error) ** 2 for error in worst)
    factor = math.exp(float(student_t.ppf((1 + CONFIDENCE) / 2, weight)) * math.sqrt(squares / weight))
    mean = {kind: rounded(float(np.mean(np.abs(found))), digits=3) if found else None for kind, found in errors.items()}
    return PhaseCalibration(
        form="phase_factors",
        rows=len({(row.phase, row.model, row.operations) for row in backward}),
        families=len({row.family for row in backward}),
        leave_one_out_error=mean["row"],
        leave_family_out_error=mean["family"] if is_whole else None,
        largest_error=rounded(float(np.max(np.abs(worst))), digits=3) if worst else None,
        interval_factor=rounded(factor if worst and is_whole else max(ESTIMATE_FACTOR, factor), digits=3),
        rows_hash=rows_hash(rows),
        priors=priors,
        measured_range=macs_range(rows),
    )


def macs_range(rows: Sequence[Measurement]) -> dict[str, list[float]]:
    """Return the smallest and largest MACs of one image of the backward rows, by the name of their phase."""
    found = {}
    for phase in BACKWARD:
        macs = [row.operations.macs for row in rows if row.phase == phase]
        if macs:
            found[f"{phase}_macs"] = [min(macs), max(macs)]
    return found
