"""The forms of the latency model: one per device class, never chosen per device.

Terms and priors were written down by what the hardware does; the widths (and the GPUs' term for activations) were
chosen of a small grid by the mean leave-family-out error over all boards of the class. ``benchmarks/form_choice.py``
repeats the choice and prints the nested error: each board under the form chosen without it.

A form says which coefficients of a profile are free, which are tied together, and what is believed of their shape
before any row is seen. Priors are shapes (relative sizes), their common scale is free for every board:

``microcontroller``
    standard = pointwise = linear MACs, depthwise MACs, weight bytes, activation bytes, overhead per operation.
    A depthwise MAC costs several times a pointwise one (little reuse), a byte about as much as a depthwise MAC.
``linux_cpu``
    standard MACs (half of a pointwise MAC: Winograd), pointwise = linear MACs, depthwise MACs, weight bytes,
    activation bytes, overhead per operation.
``linux_gpu``
    all MACs alike, activation bytes, a constant per pass, a launch per operation; launches do not get faster with
    the GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tinytrain_dist.costs.measurements import ELEMENT_BYTES, Operations, Setting

NS_PER_US = 1e3
NS_PER_MS = 1e6
_RUNTIME_FAMILIES = {"x-cube-ai": "stm32cube-ai"}
LINUX_RUNTIMES = frozenset({"ncnn", "tflite", "onnxruntime", "openvino", "mnn", "pytorch", "torch"})
"""Runtimes that run int8 networks on Linux boards; any other int8 row on one thread is a microcontroller's."""
_VERSION = re.compile(r"[-_ ]?v?\d+(\.\d+)*$")


@dataclass(frozen=True, kw_only=True)
class Term:
    """One coefficient: the profile fields it sets, what it multiplies (per element size), and its prior."""

    fields: tuple[str, ...]
    amount: Callable[[Operations, int], float]
    prior: float
    scales_with_board: bool = True


@dataclass(frozen=True, kw_only=True)
class Form:
    """The terms of a device class, and how firmly the priors hold.

    Attributes
    ----------
    row_sigma
        Relative error expected of a row.
    shape_width, group_width, board_width
        Width, in natural logarithms, of the prior of a coefficient: of the class's shape around ``Term.prior``,
        of a runtime around the class, of a board around its runtime.
    """

    name: str
    terms: tuple[Term, ...]
    row_sigma: float
    shape_width: float
    group_width: float
    board_width: float


def _weight_bytes(ops: Operations, element: int) -> float:
    return ops.weights * element


def _activation_bytes(ops: Operations, element: int) -> float:
    return ops.activations_in_out * element


def _launches(ops: Operations, element: int) -> float:
    return ops.ops * NS_PER_US


def _dense(ops: Operations, element: int) -> float:
    return ops.macs - ops.macs_depthwise


_WEIGHTS = ("weight_ns_per_byte",)
_ACTIVATIONS = ("activation_ns_per_byte",)
_OVERHEAD = ("layer_overhead_us",)
_DEPTHWISE = ("depthwise_ns_per_mac",)
_DENSE = ("standard_ns_per_mac", "pointwise_ns_per_mac", "linear_ns_per_mac")

FORMS = {
    "microcontroller": Form(
        name="microcontroller",
        terms=(
            Term(fields=_DENSE, amount=_dense, prior=2.5),
            Term(fields=_DEPTHWISE, amount=lambda ops, _: ops.macs_depthwise, prior=10.0),
            Term(fields=_WEIGHTS, amount=_weight_bytes, prior=6.0),
            Term(fields=_ACTIVATIONS, amount=_activation_bytes, prior=6.0),
            Term(fields=_OVERHEAD, amount=_launches, prior=5.0),
        ),
        row_sigma=0.06,
        shape_width=0.7,
        group_width=2.0,
        board_width=0.7,
    ),
    "linux_cpu": Form(
        name="linux_cpu",
        terms=(
            Term(fields=("standard_ns_per_mac",), amount=lambda ops, _: ops.macs_conv, prior=0.05),
            Term(
                fields=("pointwise_ns_per_mac", "linear_ns_per_mac"),
                amount=lambda ops, _: ops.macs_pointwise + ops.macs_linear,
                prior=0.1,
            ),
            Term(fields=_DEPTHWISE, amount=lambda ops, _: ops.macs_depthwise, prior=0.1),
            Term(fields=_WEIGHTS, amount=_weight_bytes, prior=0.3),
            Term(fields=_ACTIVATIONS, amount=_activation_bytes, prior=0.5),
            Term(fields=_OVERHEAD, amount=_launches, prior=5.0),
        ),
        row_sigma=0.4,
        shape_width=0.3,
        group_width=0.2,
        board_width=0.1,
    ),
    "linux_gpu": Form(
        name="linux_gpu",
        terms=(
            Term(fields=(*_DENSE, *_DEPTHWISE), amount=lambda ops, _: ops.macs, prior=0.01),
            Term(fields=_ACTIVATIONS, amount=_activation_bytes, prior=0.05),
            Term(fields=("pass_overhead_us",), amount=lambda ops, _: NS_PER_US, prior=2000.0, scales_with_board=False),
            Term(fields=_OVERHEAD, amount=_launches, prior=60.0, scales_with_board=False),
        ),
        row_sigma=0.15,
        shape_width=0.7,
        group_width=0.3,
        board_width=0.2,
    ),
}
COEFFICIENTS = (
    "standard_ns_per_mac", "pointwise_ns_per_mac", "depthwise_ns_per_mac", "linear_ns_per_mac",
    "weight_ns_per_byte", "activation_ns_per_byte", "layer_overhead_us", "pass_overhead_us",
)  # fmt: skip


def form_of(setting: Setting) -> Form:
    """Return the form of the setting's device class."""
    if setting.accelerator == "gpu":
        return FORMS["linux_gpu"]
    linux = setting.precision != "int8" or setting.threads > 1 or runtime_family(setting.runtime) in LINUX_RUNTIMES
    return FORMS["linux_cpu" if linux else "microcontroller"]


def runtime_family(runtime: str) -> str:
    """Return the runtime without its version, under the name its versions share."""
    bare = _VERSION.sub("", runtime)
    return _RUNTIME_FAMILIES.get(bare, bare)


def group_of(setting: Setting) -> str:
    """Return the name of the setting's siblings: runtime without version, precision, one thread or several."""
    runtime = runtime_family(setting.runtime)
    several = setting.threads > 1 and setting.accelerator == "cpu"
    return f"{runtime}/{setting.precision}/{setting.accelerator}/{'several threads' if several else 'one thread'}"


def amounts(form: Form, operations: Operations, precision: str) -> list[float]:
    """Return what each coefficient of ``form`` multiplies to give nanoseconds."""
    return [term.amount(operations, ELEMENT_BYTES[precision]) for term in form.terms]
