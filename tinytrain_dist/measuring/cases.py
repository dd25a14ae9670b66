"""``Case``: one thing to time, and the operation totals its row states."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tinytrain_dist.costs.measurements import Operations
from tinytrain_dist.graphs.layer_graph import ConvLayer

Term = tuple[float, Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row to measure.

    Attributes
    ----------
    phase
        One of ``costs.measurements.PHASES``.
    model, family
        Name of what runs, and what is left out together when a fit is checked.
    resolution
        Pixels of the input.
    operations
        Totals of one image (of one step: ``optimizer``, ``load``).
    build
        Makes the callables when the case's turn has come; the time is the sum of sign x time over them. Parts of
        a step that cannot run alone are a difference of two runs.
    per_image
        Whether the time is divided by the batch.
    waits
        Whether waiting counts (storage): wall time, without a ratio to the reference kernel.
    """

    phase: str
    model: str
    family: str
    resolution: int
    operations: Operations
    build: Callable[[], tuple[Term, ...]]
    per_image: bool = True
    waits: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Identity inside one file."""
        return self.phase, self.model


def operations_of(parts: Iterable[tuple[ConvLayer, float]], *, extra_macs: int = 0) -> Operations:
    """Return the totals of ``(layer, computed share)`` parts, the way ``costs.latency.layer_ms`` counts them."""
    macs = {"macs_conv": 0.0, "macs_pointwise": float(extra_macs), "macs_depthwise": 0.0}
    weights = elements = ops = 0.0
    for layer, share in parts:
        macs[_mac_column(layer)] += share * layer.macs
        weights += share * layer.weights
        elements += layer.input_elements + layer.output_elements
        ops += 1
    return Operations(**macs, macs_linear=0.0, weights=weights, activations_in_out=elements, ops=ops)


def weights_only(count: float) -> Operations:
    """Return the totals of a phase that only moves weights."""
    zero = dict.fromkeys(("macs_conv", "macs_pointwise", "macs_depthwise", "macs_linear", "activations_in_out"), 0.0)
    return Operations(**zero, weights=count, ops=1.0)


def _mac_column(layer: ConvLayer) -> str:
    if layer.role == "depthwise":
        return "macs_depthwise"
    return "macs_pointwise" if layer.kernel == 1 else "macs_conv"
