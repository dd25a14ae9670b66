"""Which numbers lie outside what was measured: named, and with an interval that grows with the distance.

A forward pass is compared by its totals with the rows of forward passes, a training step by its MACs with the rows
of training. Up to ``FAR`` times the range no interval grows beyond that of an estimate; beyond, the rows say nothing
any more: the word is ``estimate``, and the interval goes on growing with the root of the distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from tinytrain_dist.costs.calibration_record import ESTIMATE_FACTOR, PhaseCalibration
from tinytrain_dist.costs.measurements import Operations
from tinytrain_dist.costs.phase_amounts import forward_amounts
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.graphs.layer_graph import LayerGraph

Phase = Literal["forward", "training"]

TOLERANCE = 1.25
"""A total this far outside the measured range is no extrapolation worth a flag."""
FAR = 4.0
"""A total this far outside the measured range: the word is ``estimate``, whatever the rows have earned inside."""
_WIDENING = 0.5
_LEAST, _FARTHEST = 1e-9, 1e6
BACKWARD_TOTALS = ("backward_macs", "input_grad_macs", "weight_grad_macs")
"""Totals of training rows of which only more than was measured is far: less of one part is a small part of the sum."""


def network_operations(graph: LayerGraph) -> Operations:
    """Return the totals of one forward pass of ``graph``, as a row of measurements states them."""
    return _network_operations(graph)


@lru_cache(maxsize=256)
def _network_operations(graph: LayerGraph) -> Operations:
    counts = forward_amounts(graph)
    names = ("macs_conv", "macs_pointwise", "macs_depthwise", "weights", "activations_in_out", "ops")
    return Operations(macs_linear=0.0, **{name: counts[name] for name in names})


def forward_distances(profile: DeviceProfile, operations: Operations) -> dict[str, float]:
    """Return how many times beyond the measured range each total of a forward pass lies; totals inside are left out."""
    forward = profile.calibration.forward
    if forward is None:
        return {}
    totals = {name: float(getattr(operations, name)) for name in forward.measured_range}
    return _beyond(forward, totals)


def training_distances(profile: DeviceProfile, macs: Mapping[str, float]) -> dict[str, float]:
    """Return how far the MACs of one image of a training step lie beyond the training rows.

    Parameters
    ----------
    macs
        ``forward_macs``, ``backward_macs``, ``input_grad_macs``, ``weight_grad_macs`` of one image.
    """
    training = profile.calibration.training
    if training is None:
        return {}
    return _beyond(training, {name: float(macs[name]) for name in training.measured_range})


def _beyond(record: PhaseCalibration, totals: Mapping[str, float]) -> dict[str, float]:
    ratios = {
        name: float(beyond(value, *record.measured_range[name], only_above=name in BACKWARD_TOTALS))
        for name, value in totals.items()
    }
    return {name: ratio for name, ratio in ratios.items() if ratio > TOLERANCE}


def beyond(value: Any, low: float, high: float, *, only_above: bool) -> Any:
    """Return how many times ``value`` (a number or a vector) lies outside ``[low, high]``; 1 or less inside."""
    above = value / max(high, _LEAST)
    below = 1.0 if only_above else low / np.maximum(value, _LEAST)
    return np.minimum(np.maximum(above, below), _FARTHEST)


def widened(factor: float, farthest: Any) -> Any:
    """Return the interval's factor at ``farthest`` times the measured range; up to ``FAR`` at most an estimate's.

    ``farthest`` is a number or a vector, and so is what comes back.
    """
    distance = np.where(farthest > TOLERANCE, farthest, 1.0)
    most = max(factor, ESTIMATE_FACTOR) * np.maximum(distance / FAR, 1.0) ** _WIDENING
    return np.minimum(factor * distance**_WIDENING, most)[()]


def price_distances(
    profile: DeviceProfile, graph: LayerGraph, macs: Mapping[str, float], *, trains: bool
) -> dict[str, float]:
    """Return the distances of everything that enters the price of an adaptation."""
    found = forward_distances(profile, network_operations(graph))
    return found | training_distances(profile, macs) if trains else found
