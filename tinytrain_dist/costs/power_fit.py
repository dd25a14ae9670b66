"""Active power of a setting from rows that state energy: energy = power x measured time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t

from tinytrain_dist.costs.calibration import CONFIDENCE, PRIOR_ROWS, rounded
from tinytrain_dist.costs.calibration_record import PhaseCalibration
from tinytrain_dist.costs.measurements import Measurement, rows_hash

POWER_SPREAD = 0.04
"""Spread of a board's power between networks where its own rows say little (leave-one-out, 26 MLPerf Tiny systems)."""


def fit_power(rows: Sequence[Measurement]) -> tuple[float, PhaseCalibration] | None:
    """Return active power in watts and its record, or ``None`` where no row states energy."""
    known = [row for row in rows if row.energy_mj is not None and row.status == "measured"]
    if not known:
        return None
    powers = [row.energy_mj / row.latency_ms for row in known if row.energy_mj is not None]
    errors = unseen_power_errors(powers)
    weight = PRIOR_ROWS + len(errors)
    sigma = math.sqrt((PRIOR_ROWS * POWER_SPREAD**2 + sum(math.log1p(e) ** 2 for e in errors)) / weight)
    families = len({row.family for row in known})
    mean_error = rounded(float(np.mean(np.abs(errors))), digits=3) if errors else None
    record = PhaseCalibration(
        form="active_power_x_time",
        rows=len(known),
        families=families,
        leave_one_out_error=mean_error,
        leave_family_out_error=mean_error if families == len(known) else None,
        largest_error=rounded(float(np.max(np.abs(errors))), digits=3) if errors else None,
        interval_factor=rounded(math.exp(float(student_t.ppf((1 + CONFIDENCE) / 2, weight)) * sigma), digits=3),
        rows_hash=rows_hash(known),
    )
    return rounded(_middle(powers)), record


def unseen_power_errors(powers: Sequence[float]) -> list[float]:
    """Return the relative error of each row's energy, given its time, from the power of the other rows."""
    if len(powers) < 2:
        return []
    return [_middle([*powers[:index], *powers[index + 1 :]]) / own - 1 for index, own in enumerate(powers)]


def _middle(powers: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(powers))))
