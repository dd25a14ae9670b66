"""Rows of training phases -> nanoseconds per count and phase, where rows are many enough for it.

Non-negative least squares on relative error, one linear form for every phase (``phase_amounts``). Whole steps weigh
more than single layers: they are what a price is made of. Errors are of whole steps the fit has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from tinytrain_dist.costs.calibration_record import PhaseCalibration
from tinytrain_dist.costs.measurements import ELEMENT_BYTES, Measurement, rows_hash
from tinytrain_dist.costs.phase_amounts import MEASURED_PHASES, TOTALS, amounts_of
from tinytrain_dist.costs.phase_fit import macs_range

FORM = "measured_phases"
MIN_ROWS, MIN_FAMILIES, MIN_STEPS = 12, 2, 6
"""Fewer rows of a phase, model families, or whole steps among them are left to the single factor of the phase; of
``load``, which has no single layers, the whole ones are enough."""
LAYER_WEIGHT = 0.05
"""Chosen by leave-family-out error of whole steps: single layers only settle what whole steps leave open."""
FORWARD_AMOUNTS = (*TOTALS, "passes")
LEAST_NS_PER_MAC = 1e-6
CONFIDENCE = 0.90
_NS_PER_MS = 1e6

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MeasuredPhases:
    """The fit of one setting.

    Attributes
    ----------
    coefficients
        Nanoseconds by phase and count.
    forward, forward_errors
        Profile fields of the forward pass, and its errors on unseen whole passes; empty where rows are too few.
    errors
        Mean error of each phase on unseen families.
    training
        The record of all training phases.
    """

    coefficients: dict[str, dict[str, float]]
    forward: dict[str, float]
    forward_errors: dict[str, list[float]]
    errors: dict[str, float]
    training: PhaseCalibration


def fit_measured_phases(rows: Sequence[Measurement]) -> MeasuredPhases | None:
    """Return the fit of every phase with enough rows of one setting; ``None`` where no backward phase has."""
    found: dict[str, dict[str, float]] = {}
    unseen: dict[str, dict[str, list[float]]] = {}
    for phase in MEASURED_PHASES:
        own = [row for row in rows if row.phase == phase and row.status == "measured"]
        if _is_enough(own):
            found[phase] = _coefficients(own, amounts_of(phase))
            unseen[phase] = _unseen(own, amounts_of(phase))
    if not {"input_grad", "weight_grad"} <= set(found):
        return None
    used = [row for row in rows if row.phase in found]
    forward = [row for row in rows if row.phase == "forward" and row.status == "measured"]
    enough = _is_enough(forward)
    return MeasuredPhases(
        coefficients=found,
        forward=forward_fields(forward) if enough else {},
        forward_errors=_unseen(forward, FORWARD_AMOUNTS) if enough else {},
        errors={phase: float(np.mean(np.abs(errors["family"]))) for phase, errors in unseen.items()},
        training=_record(used, unseen),
    )


def is_whole_step(row: Measurement) -> bool:
    """Return whether a row timed a pass of a whole network."""
    return row.amount("passes") > 0 or row.phase == "adapters"


def _is_enough(rows: Sequence[Measurement]) -> bool:
    steps = [row for row in rows if is_whole_step(row)]
    num_rows = MIN_STEPS if all(row.phase == "load" for row in rows) else MIN_ROWS
    return len(rows) >= num_rows and len({r.family for r in steps}) >= MIN_FAMILIES and len(steps) >= MIN_STEPS


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


def forward_fields(rows: Sequence[Measurement]) -> dict[str, float]:
    """Return the profile's forward coefficients fitted to whole passes and layers."""
    ns = dict(zip(FORWARD_AMOUNTS, fit_amounts(rows, FORWARD_AMOUNTS), strict=True))
    element = ELEMENT_BYTES[rows[0].setting.precision]
    fields = {
        "standard_ns_per_mac": max(ns["macs_conv"], LEAST_NS_PER_MAC),
        "pointwise_ns_per_mac": max(ns["macs_pointwise"], LEAST_NS_PER_MAC),
        "linear_ns_per_mac": max(ns["macs_pointwise"], LEAST_NS_PER_MAC),
        "depthwise_ns_per_mac": max(ns["macs_depthwise"], LEAST_NS_PER_MAC),
        "weight_ns_per_byte": ns["weights"] / element,
        "activation_ns_per_byte": ns["activations_in_out"] / element,
        "layer_overhead_us": ns["ops"] / 1e3,
        "pass_overhead_us": ns["passes"] / 1e3,
    }
    return {name: float(f"{value:.4g}") for name, value in fields.items()}


def _coefficients(rows: Sequence[Measurement], names: Sequence[str]) -> dict[str, float]:
    values = fit_amounts(rows, names)
    return {name: float(f"{value:.5g}") for name, value in zip(names, values, strict=True) if value > 0}


def _unseen(rows: Sequence[Measurement], names: Sequence[str]) -> dict[str, list[float]]:
    """Return the relative errors of whole steps: each left out alone, and each with all rows of its family."""
    steps = [row for row in rows if is_whole_step(row)]
    by_row = [_errors([other for other in rows if other is not row], [row], names) for row in steps]
    by_family = [
        _errors([row for row in rows if row.family != family], [row for row in steps if row.family == family], names)
        for family in sorted({row.family for row in steps})
    ]
    return {"row": list(chain.from_iterable(by_row)), "family": list(chain.from_iterable(by_family))}


def _errors(fitted: Sequence[Measurement], left_out: Sequence[Measurement], names: Sequence[str]) -> list[float]:
    values = fit_amounts(fitted, names)
    return [
        float(values @ [row.amount(name) for name in names]) / (row.latency_ms * _NS_PER_MS) - 1 for row in left_out
    ]


def _record(rows: Sequence[Measurement], unseen: dict[str, dict[str, list[float]]]) -> PhaseCalibration:
    backward = [unseen[phase] for phase in ("input_grad", "weight_grad")]
    errors = {kind: [error for phase in backward for error in phase[kind]] for kind in ("row", "family")}
    families = len({row.family for row in rows})
    bare = PhaseCalibration(
        form=FORM, rows=len(rows), families=families, interval_factor=1.0, rows_hash=rows_hash(rows),
        measured_range=macs_range(rows),
    )  # fmt: skip
    return bare.model_copy(update=error_fields(errors))


def error_fields(errors: dict[str, list[float]]) -> dict[str, float]:
    """Return the fields of a record that say how far unseen whole steps were missed."""
    from scipy.stats import t as student_t

    worst = errors["family"]
    spread = math.sqrt(float(np.mean([math.log(max(1 + error, 0.05)) ** 2 for error in worst])))
    values = {
        "leave_one_out_error": float(np.mean(np.abs(errors["row"]))),
        "leave_family_out_error": float(np.mean(np.abs(worst))),
        "largest_error": float(np.max(np.abs(worst))),
        "interval_factor": math.exp(float(student_t.ppf((1 + CONFIDENCE) / 2, len(worst))) * spread),
    }
    return {name: float(f"{value:.3g}") for name, value in values.items()}
