"""``DeviceProfile``: one setting of one device, frozen, with the provenance of every number."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tinytrain_dist.costs.calibration_record import Calibration, Standing
from tinytrain_dist.costs.phase_amounts import AMOUNTS, MEASURED_PHASES
from tinytrain_dist.foundation.errors import ProfileError, nearest
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.foundation.paths import check_name

FitCounter = Literal["lifetime_int8", "paper_fp32"]
ProvenanceKind = Literal["measured", "documented", "derived", "assumed", "unsourced"]

_ELEMENT_BYTES: dict[FitCounter, int] = {"lifetime_int8": 1, "paper_fp32": 4}

MOST = 1 << 53
"""Whole numbers above are exact in no float, and no device has as many bytes or hertz."""
Text = Annotated[str, Field(min_length=1, description="a text")]
Bytes = Annotated[int, Field(ge=0, le=MOST, description="a whole number of bytes, 0 or more, at most 2^53")]
SomeBytes = Annotated[int, Field(gt=0, le=MOST, description="a whole number of bytes above 0, at most 2^53")]
MaybeBytes = Annotated[
    int | None, Field(ge=0, le=MOST, description="a whole number of bytes, 0 or more, or null, at most 2^53")
]
BytesPerSecond = Annotated[
    int, Field(ge=0, le=MOST, description="a whole number of bytes per second, 0 or more, at most 2^53")
]
Hertz = Annotated[int, Field(gt=0, le=MOST, description="a whole number of hertz above 0, at most 2^53")]
NsPerMac = Annotated[float, Field(gt=0, description="nanoseconds per MAC, a number above 0")]
NsPerByte = Annotated[float, Field(ge=0, description="nanoseconds per byte, a number, 0 or more")]
NsPerCount = Annotated[float, Field(ge=0, description="nanoseconds per count, a number, 0 or more")]
NsPerWeight = Annotated[float, Field(ge=0, description="nanoseconds per weight, a number, 0 or more")]
Microseconds = Annotated[float, Field(ge=0, description="microseconds, a number, 0 or more")]
Ratio = Annotated[float, Field(gt=0, description="a ratio, a number above 0")]
MaybeWatts = Annotated[float | None, Field(ge=0, description="watts, a number, 0 or more, or null when unknown")]
MaybeVolts = Annotated[float | None, Field(gt=0, description="volts, a number above 0, or null when unknown")]

KEY_FIELDS = ("name", "runtime", "precision", "threads", "accelerator", "power_mode")
"""What tells one profile from another; ``threads`` is a setting, not a figure with a source."""


class Provenance(BaseModel):
    """Where a number comes from: how it was obtained, and from which source."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    kind: Annotated[ProvenanceKind, Field(description="measured, documented, derived, assumed or unsourced")]
    source: Text


NOT_STATED = Provenance(kind="unsourced", source="not stated in the profile")


class DeviceProfile(BaseModel):
    """A device in one setting: (device, runtime, precision, threads, accelerator, power mode).

    Attributes
    ----------
    device_class
        ``microcontroller``: frozen weights are read in place from flash, no swap, no other processes.
        ``linux``: all parameters are resident in RAM beside the operating system, what exceeds it is swapped.
    fit_counter
        Counter that decides whether memory suffices (``costs/fit.py``). ``lifetime_int8``: the lifetime planner at
        1 byte per weight and activation. ``paper_fp32``: the paper's counter at 4 bytes.
    flash_bytes
        ``None``: external storage of unknown size, no limit is checked.
    storage_bandwidth_bytes_per_s
        0: weights are read in place and swapping is impossible.
    standard_ns_per_mac, pointwise_ns_per_mac, depthwise_ns_per_mac, linear_ns_per_mac
        Cost of one forward MAC by class of layer.
    layer_overhead_us, pass_overhead_us
        Cost of launching one operation, and of one forward pass.
    overhead_per
        What pays these two: every ``image`` (measured rows are times of one image), or every ``batch``, which is
        what whole training runs at batch 1 and 100 say together.
    fisher_cost_ratio
        Cost of the Fisher pass relative to its MACs priced as forward and input gradient.
    input_grad_cost_ratio, weight_grad_cost_ratio
        Cost of a MAC of the backward pass relative to a forward MAC of the same layer.
    active_power_w, io_power_w, idle_power_w
        Power while computing, while waiting for storage, and while idle; ``None`` when unknown.
    phases
        Nanoseconds per count (``phase_amounts.AMOUNTS``) of training phases that were measured by themselves; a phase
        that stands here is priced by it instead of by its cost ratio.
    calibration
        Errors and intervals of each phase that has rows of measurements; written by ``calibrate``.
    provenance
        Field name -> kind and source. A number without an entry counts as unsourced.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    name: Text
    board: Text
    soc: Text
    device_class: Annotated[Literal["microcontroller", "linux"], Field(description="microcontroller or linux")]
    runtime: Text
    precision: Annotated[Literal["fp32", "fp16", "int8"], Field(description="fp32, fp16 or int8")]
    threads: Annotated[int, Field(gt=0, le=MOST, description="a whole number of threads above 0, at most 2^53")]
    accelerator: Annotated[Literal["cpu", "gpu"], Field(description="cpu or gpu")]
    power_mode: Annotated[str | None, Field(description="the name of a power mode, or null")]
    fit_counter: Annotated[FitCounter, Field(description="lifetime_int8 or paper_fp32")]

    clock_hz: Hertz
    ram_bytes: SomeBytes
    flash_bytes: MaybeBytes
    os_overhead_bytes: Bytes
    code_allowance_bytes: Bytes
    storage_bandwidth_bytes_per_s: BytesPerSecond

    standard_ns_per_mac: NsPerMac
    pointwise_ns_per_mac: NsPerMac
    depthwise_ns_per_mac: NsPerMac
    linear_ns_per_mac: NsPerMac
    weight_ns_per_byte: NsPerByte
    activation_ns_per_byte: NsPerByte
    layer_overhead_us: Microseconds
    pass_overhead_us: Microseconds = 0.0
    overhead_per: Annotated[Literal["image", "batch"], Field(description="image or batch")] = "image"
    input_grad_cost_ratio: Ratio
    weight_grad_cost_ratio: Ratio
    fisher_cost_ratio: Ratio = 1.0
    optimizer_ns_per_weight: NsPerWeight

    supply_voltage_v: MaybeVolts
    active_power_w: MaybeWatts
    io_power_w: MaybeWatts
    idle_power_w: MaybeWatts

    phases: Annotated[dict[str, dict[str, NsPerCount]], Field(description="a mapping of phases to counts and ns")] = {}
    calibration: Annotated[Calibration, Field(description="what calibrate wrote")] = Calibration()
    provenance: Annotated[dict[str, Provenance], Field(description="a mapping of field names to kind and source")]

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, value: str) -> str:
        return check_name(value, what="name", error=ProfileError)

    @field_validator("phases")
    @classmethod
    def _phases_are_known(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for phase, counts in value.items():
            if phase not in MEASURED_PHASES:
                raise ProfileError(f"unknown phase {phase!r}; {nearest(phase, MEASURED_PHASES)}")
            for name in counts:
                if name not in AMOUNTS:
                    raise ProfileError(f"{phase}: unknown count {name!r}; {nearest(name, AMOUNTS)}")
        return value

    @model_validator(mode="after")
    def _provenance_names_numbers(self) -> DeviceProfile:
        strangers = sorted(set(self.provenance) - set(numeric_fields()))
        if strangers:
            raise ValueError(f"provenance: {strangers[0]!r} is no field with a number")
        return self

    @cached_property
    def hash(self) -> str:
        """Content hash of everything that decides a price; the wording of sources is left out."""
        left_out = {"provenance"} if self.phases else {"provenance", "phases"}
        return content_hash(self.model_dump(exclude=left_out))

    def __hash__(self) -> int:
        return hash(self.hash)

    @property
    def bytes_per_element(self) -> int:
        """Bytes of one weight or activation under the profile's fit counter."""
        return _ELEMENT_BYTES[self.fit_counter]

    @property
    def price_numerics(self) -> str:
        """Arithmetic the device is priced in: ``int8`` or ``fp32``."""
        return "int8" if self.bytes_per_element == 1 else "fp32"

    @property
    def standing(self) -> Standing:
        """How far the time of forward passes can be trusted."""
        forward = self.calibration.forward
        return "estimate" if forward is None else forward.standing

    @property
    def training_standing(self) -> Standing:
        """How far time and energy of training can be trusted: forward rows say nothing about backward passes."""
        training = self.calibration.training
        return "estimate" if training is None else training.standing

    def provenance_of(self, field: str) -> Provenance:
        """Return the provenance of a numeric field; ``unsourced`` where the profile states none."""
        return self.provenance.get(field, NOT_STATED)


def numeric_fields() -> tuple[str, ...]:
    """Return the fields that carry a figure and therefore a provenance, in order."""
    fields = DeviceProfile.model_fields
    ends = ("_hz", "_bytes", "_per_s", "_per_mac", "_per_byte", "_per_weight", "_us", "_ratio", "_v", "_w")
    return tuple(name for name in fields if name.endswith(ends))
