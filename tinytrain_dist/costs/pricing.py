"""What adapting to one task costs on one device: the cost columns of a result row."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.costs.counters import STATE_WORDS, PaperMemory, check_batch
from tinytrain_dist.costs.energy import PhaseTimes, phase_energies
from tinytrain_dist.costs.fit import (
    counted_memory,
    device_budget,
    fixed_bytes,
    plan_memory_bytes,
    stored_parameter_bytes,
)
from tinytrain_dist.costs.latency import fisher_pass_ms, forward_ms, image_pass, optimizer_step_ms, transfer_ms
from tinytrain_dist.costs.macs import fisher_macs, plan_macs
from tinytrain_dist.costs.profiles import DeviceProfile, Standing
from tinytrain_dist.costs.saved_exact import saved_exact_bytes
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan

__all__ = ["Price", "Workload", "device_budget", "plan_memory_bytes", "price"]

ESTIMATE_FACTOR = 2.0
"""Half-width of the interval of an estimate: the value may be half or double."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one adaptation runs.

    Attributes
    ----------
    support_size
        Support images of the task.
    iterations
        Fine-tuning iterations; each passes all support images and as many pseudo-query images.
    inspected
        Layers of the Fisher pass; empty: no pass is made.
    full
        The FullTrain formula counts the memory.
    images_per_iteration
        ``None``: ``2 x support_size``. The paper's end-to-end figures use 25.
    """

    support_size: int
    iterations: int
    batch: int = 1
    optimizer: str = "adam"
    inspected: tuple[int, ...] = ()
    full: bool = False
    images_per_iteration: int | None = None

    def __post_init__(self) -> None:
        for key, low in (("support_size", 1), ("iterations", 0)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ConfigError(f"{key}: found {value!r}; allowed: a whole number of at least {low}")
        if self.images_per_iteration is not None and self.images_per_iteration < 1:
            raise ConfigError(f"images_per_iteration: found {self.images_per_iteration!r}; allowed: 1 or more, or null")
        check_batch(self.batch)
        if self.optimizer not in STATE_WORDS:
            raise ConfigError(f"unknown optimizer {self.optimizer!r}; {nearest(self.optimizer, STATE_WORDS)}")

    @property
    def step_images(self) -> int:
        """Images passed forward and backward in one iteration."""
        return 2 * self.support_size if self.images_per_iteration is None else self.images_per_iteration

    def trains(self, plan: UpdatePlan) -> bool:
        """Return whether anything is updated; otherwise the support images pass forward once (prototypes)."""
        return self.iterations > 0 and not plan.is_empty


@dataclass(frozen=True, kw_only=True)
class Price:
    """The cost columns of a result row, under the same names and units (``simulation/schema.py``).

    The terms of the paper counter, ``saved_exact_bytes`` and ``parameter_bytes`` are fp32; ``peak_bytes`` follows
    ``fit_counter``. MACs follow the paper's chain; milliseconds the chain a device really runs.
    """

    batch: int
    fit_counter: str
    price_numerics: str
    updated_weight_bytes: int
    optimizer_bytes: int
    forward_activation_bytes: int
    saved_activation_bytes: int
    saved_exact_bytes: int
    parameter_bytes: int
    paper_memory_bytes: int
    paper_peak_bytes: int
    peak_bytes: int
    flash_bytes: int
    forward_macs: int
    input_grad_macs: int
    weight_grad_macs: int
    fisher_macs: int
    training_macs: int
    load_ms: float
    selection_ms: float
    training_ms: float
    swap_ms: float
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    load_mj: float | None
    selection_mj: float | None
    training_mj: float | None
    swap_mj: float | None
    energy_mj: float | None
    energy_low_mj: float | None
    energy_high_mj: float | None
    fits: bool
    ram_margin_bytes: int
    flash_margin_bytes: int | None
    standing: Standing


def price(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile, workload: Workload) -> Price:
    """Return what adapting by ``plan`` costs on ``profile``.

    Raises
    ------
    PlanError
        The plan does not belong to ``graph``.
    """
    paper = _memory(graph, plan, workload, bytes_per_element=4)
    counted = _memory(graph, plan, workload, bytes_per_element=profile.bytes_per_element)
    peak = counted.total_bytes + fixed_bytes(graph, profile)
    flash = stored_parameter_bytes(graph, profile) + profile.code_allowance_bytes
    ram_margin = profile.ram_bytes - peak
    flash_margin = None if profile.flash_bytes is None else profile.flash_bytes - flash
    times = phase_times(graph, plan, profile, workload, missing_bytes=max(0, -ram_margin))
    energies = phase_energies(times, profile)
    macs = plan_macs(graph, plan)
    return Price(
        batch=workload.batch,
        fit_counter=profile.fit_counter,
        price_numerics=profile.price_numerics,
        updated_weight_bytes=paper.updated_weight_bytes,
        optimizer_bytes=paper.optimizer_bytes,
        forward_activation_bytes=paper.forward_activation_bytes,
        saved_activation_bytes=paper.saved_activation_bytes,
        saved_exact_bytes=saved_exact_bytes(graph, plan, batch=workload.batch),
        parameter_bytes=paper.parameter_bytes,
        paper_memory_bytes=paper.total_bytes,
        paper_peak_bytes=paper.peak_bytes,
        peak_bytes=peak,
        flash_bytes=flash,
        forward_macs=macs.forward,
        input_grad_macs=macs.input_grad,
        weight_grad_macs=macs.weight_grad,
        fisher_macs=selection_macs(graph, workload),
        training_macs=training_macs(graph, plan, workload),
        load_ms=times.load_ms,
        selection_ms=times.selection_ms,
        training_ms=times.training_ms,
        swap_ms=times.swap_ms,
        latency_ms=times.total_ms,
        latency_low_ms=times.total_ms / ESTIMATE_FACTOR,
        latency_high_ms=times.total_ms * ESTIMATE_FACTOR,
        load_mj=energies.load_mj,
        selection_mj=energies.selection_mj,
        training_mj=energies.training_mj,
        swap_mj=energies.swap_mj,
        energy_mj=energies.total_mj,
        energy_low_mj=None if energies.total_mj is None else energies.total_mj / ESTIMATE_FACTOR,
        energy_high_mj=None if energies.total_mj is None else energies.total_mj * ESTIMATE_FACTOR,
        fits=ram_margin >= 0 and (flash_margin is None or flash_margin >= 0),
        ram_margin_bytes=ram_margin,
        flash_margin_bytes=flash_margin,
        standing=profile.standing,
    )


def _memory(graph: LayerGraph, plan: UpdatePlan, workload: Workload, *, bytes_per_element: int) -> PaperMemory:
    return counted_memory(
        graph, plan, full=workload.full, batch=workload.batch, optimizer=workload.optimizer,
        bytes_per_element=bytes_per_element,
    )  # fmt: skip


def selection_macs(graph: LayerGraph, workload: Workload) -> int:
    """Return the MACs of the Fisher pass over the task: support and pseudo-query images."""
    return workload.step_images * fisher_macs(graph, workload.inspected)


def training_macs(graph: LayerGraph, plan: UpdatePlan, workload: Workload) -> int:
    """Return the MACs of all iterations, or of the prototypes where nothing is trained."""
    macs = plan_macs(graph, plan)
    if not workload.trains(plan):
        return workload.support_size * macs.forward
    return workload.iterations * workload.step_images * (macs.forward + macs.backward)


def phase_times(
    graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile, workload: Workload, *, missing_bytes: int
) -> PhaseTimes:
    """Return the time of each phase; ``missing_bytes`` of RAM go to storage and back in every batch."""
    if workload.trains(plan):
        image = image_pass(graph, plan, profile).total_ms
        step = workload.step_images * image + optimizer_step_ms(graph, plan, profile, optimizer=workload.optimizer)
        training = workload.iterations * step
        num_passes = 2 * workload.iterations * -(-workload.step_images // workload.batch)
    else:
        training = workload.support_size * forward_ms(graph, profile)
        num_passes = -(-workload.support_size // workload.batch)
    return PhaseTimes(
        load_ms=transfer_ms(stored_parameter_bytes(graph, profile), profile),
        selection_ms=workload.step_images * fisher_pass_ms(graph, workload.inspected, profile),
        training_ms=training,
        swap_ms=num_passes * transfer_ms(missing_bytes, profile),
    )
