"""One or two published rows -> a whole profile: its shape from another device, its scale from the rows.

A device of which nobody published more than this. A row of a forward pass scales all forward coefficients alike, rows
of training steps the cost of a backward MAC: too few rows to say more, and worth the word ``anchored``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from tinytrain_dist.costs.calibration import rounded
from tinytrain_dist.costs.calibration_record import ESTIMATE_FACTOR, PhaseCalibration
from tinytrain_dist.costs.latency import image_pass, optimizer_step_ms
from tinytrain_dist.costs.latency_forms import COEFFICIENTS, NS_PER_MS
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.costs.measurements import Measurement, rows_hash
from tinytrain_dist.costs.prediction import forward_ns
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.costs.static_plans import static_plan
from tinytrain_dist.foundation.errors import ConfigError, ProfileError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph

SCALE_TOLERANCE = 0.002
"""A scale this close to the rows is left alone: the coefficients are stored to four digits."""
STEP_PLAN = "sparse_update"
"""What a published training step updates; in place, so without an optimizer's state."""
_RATIOS = (0.05, 50.0)


@dataclass(frozen=True, kw_only=True)
class ScaledPhase:
    """Profile fields that the rows scale, and the record of the phase."""

    coefficients: dict[str, float]
    record: PhaseCalibration


def scale_forward(rows: Sequence[Measurement], profile: DeviceProfile) -> ScaledPhase:
    """Return ``profile``'s forward coefficients times what makes it reproduce ``rows`` (their geometric mean)."""
    logs = [math.log(row.latency_ms * NS_PER_MS / forward_ns(profile, row.operations)) for row in rows]
    scale = math.exp(float(np.mean(logs)))
    found = {}
    if abs(scale - 1) > SCALE_TOLERANCE:
        found = {name: rounded(scale * getattr(profile, name)) for name in COEFFICIENTS}
    totals = ("macs", "weights", "activations_in_out", "ops")
    measured = {name: _ends([float(getattr(row.operations, name)) for row in rows]) for name in totals}
    return ScaledPhase(coefficients=found, record=_record(rows, form="scaled_shape", measured_range=measured))


def scale_backward(rows: Sequence[Measurement], profile: DeviceProfile) -> ScaledPhase:
    """Return the cost ratio of a backward MAC under which ``profile`` reproduces the training steps ``rows``."""
    ratio = rounded(_ratio(rows, profile), digits=3)
    errors = []
    for row in rows:
        others = [other for other in rows if other is not row]
        if others:
            errors.append(step_ms(row, profile, _ratio(others, profile)) / row.latency_ms - 1)
    graphs = [_graph_of(row) for row in rows]
    macs = [plan_macs(graph, static_plan(STEP_PLAN, graph).plan) for graph in graphs]
    measured = {name: _ends([float(getattr(m, name.removesuffix("_macs"))) for m in macs])
                for name in ("forward_macs", "backward_macs")}  # fmt: skip
    record = _record(rows, form="scaled_steps", measured_range=measured, errors=errors)
    fields = ("input_grad_cost_ratio", "weight_grad_cost_ratio")
    return ScaledPhase(coefficients=dict.fromkeys(fields, ratio), record=record)


def step_ms(row: Measurement, profile: DeviceProfile, ratio: float) -> float:
    """Return the time of the training step ``row`` on ``profile``: one image, updated in place."""
    graph = _graph_of(row)
    plan = static_plan(STEP_PLAN, graph).plan
    fields = {"input_grad_cost_ratio": ratio, "weight_grad_cost_ratio": ratio}
    with_ratio = profile.model_copy(update=fields)
    return image_pass(graph, plan, with_ratio).total_ms + optimizer_step_ms(graph, plan, with_ratio, optimizer="sgd")


def _ratio(rows: Sequence[Measurement], profile: DeviceProfile) -> float:
    def gap(log: float) -> float:
        times = [step_ms(row, profile, math.exp(log)) / row.latency_ms for row in rows]
        return float(np.mean(np.log(times)))

    low, high = np.log(_RATIOS)
    if not gap(low) < 0 < gap(high):
        said = ", ".join(f"{row.model} (line {row.line}) in {row.latency_ms:g} ms" for row in rows)
        raise ProfileError(
            f"training steps on {rows[0].setting.long_name}: {said}: no cost of a backward MAC between {_RATIOS[0]:g} "
            f"and {_RATIOS[1]:g} forward MACs explains them; allowed: milliseconds of one step of one image"
        )
    return math.exp(brentq(gap, low, high, xtol=1e-9))


def _graph_of(row: Measurement) -> LayerGraph:
    try:
        return layer_graph(row.model)
    except ConfigError as error:
        raise ProfileError(f"line {row.line}, column 'model' of a row of phase 'step': {error}") from error


def _ends(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]


def _record(
    rows: Sequence[Measurement], *, form: str, measured_range: dict[str, list[float]], errors: Sequence[float] = ()
) -> PhaseCalibration:
    """Return the record: two rows say too little of a spread, so the interval stays that of an estimate."""
    sizes = [abs(error) for error in errors]
    return PhaseCalibration(
        form=form,
        rows=len(rows),
        families=len({row.family for row in rows}),
        leave_one_out_error=rounded(float(np.mean(sizes)), digits=3) if sizes else None,
        largest_error=rounded(max(sizes), digits=3) if sizes else None,
        interval_factor=ESTIMATE_FACTOR,
        rows_hash=rows_hash(rows),
        measured_range=measured_range,
    )
