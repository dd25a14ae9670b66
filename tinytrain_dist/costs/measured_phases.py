"""Rows of training phases -> nanoseconds per count and phase, where rows are many enough for it.

Non-negative least squares on relative error, one linear form for every phase (``phase_amounts``). Whole steps weigh
more than single layers: they are what a price is made of. Errors are of whole steps the fit has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinytrain_dist.costs.calibration_record import PhaseCalibration
from tinytrain_dist.costs.measurements import Measurement, rows_hash
from tinytrain_dist.costs.phase_amounts import AMOUNTS, MEASURED_PHASES

FORM = "measured_phases"
MIN_ROWS, MIN_FAMILIES, MIN_STEPS = 12, 2, 6
"""Fewer rows of a phase, model families, or whole steps among them are left to the single factor of the phase."""
LAYER_WEIGHT = 0.2
CONFIDENCE = 0.90
_NS_PER_MS = 1e6

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MeasuredPhases:
    """Nanoseconds by phase and count, mean error of each phase on unseen families, and the record of training."""

    coefficients: dict[str, dict[str, float]]
    errors: dict[str, float]
    training: PhaseCalibration


def fit_measured_phases(rows: Sequence[Measurement]) -> MeasuredPhases | None:
    """Return the fit of every phase with enough rows of one setting; ``None`` where no backward phase has."""
    found: dict[str, dict[str, float]] = {}
    unseen: dict[str, dict[str, list[float]]] = {}
    for phase in MEASURED_PHASES:
        own = [row for row in rows if row.phase == phase and row.status == "measured"]
        if _is_enough(own):
            found[phase] = _coefficients(own)
            unseen[phase] = {"row": _unseen_rows(own), "family": _unseen_families(own)}
    if not {"input_grad", "weight_grad"} <= set(found):
        return None
    used = [row for row in rows if row.phase in found]
    return MeasuredPhases(
        coefficients=found,
        errors={phase: float(np.mean(np.abs(errors["family"]))) for phase, errors in unseen.items()},
        training=_record(used, unseen),
    )


def is_whole_step(row: Measurement) -> bool:
    """Return whether a row timed a pass of a whole network."""
    return row.amount("passes") > 0


def _is_enough(rows: Sequence[Measurement]) -> bool:
    steps = [row for row in rows if is_whole_step(row)]
    return len(rows) >= MIN_ROWS and len({r.family for r in steps}) >= MIN_FAMILIES and len(steps) >= MIN_STEPS


def fit_amounts(rows: Sequence[Measurement], names: Sequence[str]) -> Array:
    """Return nanoseconds per count ``[names]``, 0 or more, from the rows' counts and times."""
    from scipy.optimize import nnls

    times = np.array([row.latency_ms * _NS_PER_MS for row in rows])
    weights = np.array([1.0 if is_whole_step(row) else LAYER_WEIGHT for row in rows])
    counts = np.array([[row.amount(name) for name in names] for row in rows])
    relative = counts * (weights / times)[:, None]
    scale = np.maximum(relative.max(axis=0), 1e-30)
    solution: Array = nnls(relative / scale, weights)[0] / scale
    return solution


def _coefficients(rows: Sequence[Measurement]) -> dict[str, float]:
    values = fit_amounts(rows, AMOUNTS)
    return {name: float(f"{value:.5g}") for name, value in zip(AMOUNTS, values, strict=True) if value > 0}


def _errors(fitted: Sequence[Measurement], left_out: Sequence[Measurement]) -> list[float]:
    values = fit_amounts(fitted, AMOUNTS)
    return [
        float(values @ [row.amount(name) for name in AMOUNTS]) / (row.latency_ms * _NS_PER_MS) - 1 for row in left_out
    ]


def _unseen_rows(rows: Sequence[Measurement]) -> list[float]:
    steps = [row for row in rows if is_whole_step(row)]
    return [error for row in steps for error in _errors([other for other in rows if other is not row], [row])]


def _unseen_families(rows: Sequence[Measurement]) -> list[float]:
    found = []
    for family in sorted({row.family for row in rows if is_whole_step(row)}):
        left_out = [row for row in rows if row.family == family and is_whole_step(row)]
        found += _errors([row for row in rows if row.family != family], left_out)
    return found


def _record(rows: Sequence[Measurement], unseen: dict[str, dict[str, list[float]]]) -> PhaseCalibration:
    from scipy.stats import t as student_t

    backward = [unseen[phase] for phase in ("input_grad", "weight_grad")]
    by_row = [error for errors in backward for error in errors["row"]]
    by_family = [error for errors in backward for error in errors["family"]]
    logs = [math.log(max(1 + error, 0.05)) for error in by_family]
    spread = math.sqrt(sum(log**2 for log in logs) / len(logs))
    factor = math.exp(float(student_t.ppf((1 + CONFIDENCE) / 2, len(logs))) * spread)
    return PhaseCalibration(
        form=FORM,
        rows=len(rows),
        families=len({row.family for row in rows}),
        leave_one_out_error=_rounded(float(np.mean(np.abs(by_row)))),
        leave_family_out_error=_rounded(float(np.mean(np.abs(by_family)))),
        largest_error=_rounded(float(np.max(np.abs(by_family)))),
        interval_factor=_rounded(factor),
        rows_hash=rows_hash(rows),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
