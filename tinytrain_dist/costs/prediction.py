"""Operation totals + device profile -> latency and energy with their interval; extrapolation is flagged."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.costs.calibration_record import Standing
from tinytrain_dist.costs.extrapolation import FAR, forward_distances, widened
from tinytrain_dist.costs.intervals import combined_factor, interval_factor
from tinytrain_dist.costs.latency_forms import NS_PER_MS, NS_PER_US
from tinytrain_dist.costs.measurements import ELEMENT_BYTES, Operations
from tinytrain_dist.costs.profiles import DeviceProfile


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Time and energy of one forward pass.

    ``extrapolated`` names the totals that lie outside what was measured, empty where none does; the interval is
    widened with the distance.
    """

    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    energy_mj: float | None
    energy_low_mj: float | None
    energy_high_mj: float | None
    standing: Standing
    extrapolated: tuple[str, ...]


def predict(profile: DeviceProfile, operations: Operations) -> Prediction:
    """Return the price of one forward pass of a network with these totals on ``profile``."""
    latency_ms = forward_ns(profile, operations) / NS_PER_MS
    beyond = forward_distances(profile, operations)
    farthest = max([1.0, *beyond.values()])
    time_factor = float(widened(interval_factor(profile, phase="forward"), farthest))
    energy_factor = float(widened(combined_factor(profile, phase="forward"), farthest))
    energy = None if profile.active_power_w is None else profile.active_power_w * latency_ms
    return Prediction(
        latency_ms=latency_ms,
        latency_low_ms=latency_ms / time_factor,
        latency_high_ms=latency_ms * time_factor,
        energy_mj=energy,
        energy_low_mj=None if energy is None else energy / energy_factor,
        energy_high_mj=None if energy is None else energy * energy_factor,
        standing="estimate" if farthest > FAR else profile.standing,
        extrapolated=tuple(beyond),
    )


def forward_ns(profile: DeviceProfile, operations: Operations) -> float:
    """Return the nanoseconds of one forward pass; bytes at the precision the profile runs in."""
    launch = profile.pass_overhead_us * NS_PER_US
    return compute_ns(profile, operations) + traffic_ns(profile, operations) + launch


def compute_ns(profile: DeviceProfile, operations: Operations) -> float:
    """Return the nanoseconds of the MACs alone: what the cost ratios of backward passes multiply."""
    return (
        operations.macs_conv * profile.standard_ns_per_mac
        + operations.macs_pointwise * profile.pointwise_ns_per_mac
        + operations.macs_depthwise * profile.depthwise_ns_per_mac
        + operations.macs_linear * profile.linear_ns_per_mac
    )


def traffic_ns(profile: DeviceProfile, operations: Operations) -> float:
    """Return the nanoseconds of bytes moved and operations launched."""
    element = ELEMENT_BYTES[profile.precision]
    return (
        operations.weights * element * profile.weight_ns_per_byte
        + operations.activations_in_out * element * profile.activation_ns_per_byte
        + operations.ops * profile.layer_overhead_us * NS_PER_US
    )
