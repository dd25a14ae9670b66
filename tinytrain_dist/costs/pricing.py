"""What adapting to one task costs on one device: the cost columns of a result row."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.costs.adapter_latency import adapter_optimizer_ms, adapter_pass
from tinytrain_dist.costs.calibration_record import Standing
from tinytrain_dist.costs.energy import PhaseTimes, phase_energies
from tinytrain_dist.costs.extrapolation import FAR, Phase, price_distances
from tinytrain_dist.costs.fit import (
    Fits,
    adapter_gap_bytes,
    counted_memory,
    device_budget,
    fit_memory_bytes,
    fits_device,
    fixed_bytes,
    peak_interval_bytes,
    plan_memory_bytes,
    stored_parameter_bytes,
)
from tinytrain_dist.costs.intervals import factors, spans
from tinytrain_dist.costs.latency import (
    fisher_pass_ms,
    forward_ms,
    image_pass,
    load_ms,
    optimizer_step_ms,
    transfer_ms,
    without_launches,
)
from tinytrain_dist.costs.macs import Macs, fisher_macs, plan_macs
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.costs.saved_exact import saved_exact_bytes
from tinytrain_dist.costs.workload import Workload
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan

__all__ = ["Price", "Workload", "device_budget", "plan_memory_bytes", "price"]


@dataclass(frozen=True, kw_only=True)
class Price:
    """The cost columns of a result row, under the same names and units (``simulation/schema.py``).

    The terms of the paper counter, ``saved_exact_bytes`` and ``parameter_bytes`` are fp32; ``peak_bytes`` follows
    ``fit_counter``, and its ends that counter's stated error. MACs follow the paper's chain; milliseconds the chain
    a device really runs. ``batch`` is at most the images there are, but for the paper's convention. ``extrapolated``
    names the totals that lie outside what was measured on the device.
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
    peak_low_bytes: int
    peak_high_bytes: int
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
    fits: Fits
    ram_margin_bytes: int
    flash_margin_bytes: int | None
    extrapolated: str
    standing: Standing


def standing_word(profile: DeviceProfile, *, trains: bool, farthest: float = 1.0) -> Standing:
    """Return how far a time and an energy can be trusted.

    Parameters
    ----------
    trains
        They contain backward passes.
    farthest
        How many times outside the measured range they lie; beyond ``FAR`` they are estimates.
    """
    if farthest > FAR:
        return "estimate"
    return profile.training_standing if trains else profile.standing


def phase_of(*, trains: bool) -> Phase:
    """Return the phase whose measurements decide the interval of a time or an energy."""
    return "training" if trains else "forward"


def price(graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile, workload: Workload) -> Price:
    """Return what adapting by ``plan`` costs on ``profile``.

    Raises
    ------
    PlanError
        The plan does not belong to ``graph``.
    """
    workload = workload.at_once(plan)
    paper = counted_memory(graph, plan, full=workload.full, batch=workload.batch, optimizer=workload.optimizer)
    counted = fit_memory_bytes(graph, plan, profile.fit_counter, workload)
    peak = counted + fixed_bytes(graph, profile)
    gap = adapter_gap_bytes(plan, profile, counted, full=workload.full)
    peak_low, peak_high = peak_interval_bytes(profile, peak, gap_bytes=gap)
    flash = stored_parameter_bytes(graph, profile, plan) + profile.code_allowance_bytes
    ram_margin = profile.ram_bytes - peak
    flash_margin = None if profile.flash_bytes is None else profile.flash_bytes - flash
    times = phase_times(graph, plan, profile, workload, missing_bytes=max(0, -ram_margin))
    energies = phase_energies(times, profile)
    trains, macs = workload.trains(plan), plan_macs(graph, plan)
    beyond = price_distances(profile, graph, macs_by_name(macs), trains=trains)
    farthest = max([1.0, *beyond.values()])
    found = factors(profile, phase=phase_of(trains=trains), farthest=farthest)
    missing = (max(0, end - profile.ram_bytes) for end in (peak_low, peak_high))
    low_swap, high_swap = (num_passes(plan, workload) * transfer_ms(some, profile) for some in missing)
    ends = spans(times, (low_swap, high_swap), profile, found)
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
        peak_low_bytes=peak_low,
        peak_high_bytes=peak_high,
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
        latency_low_ms=ends.latency_low_ms,
        latency_high_ms=ends.latency_high_ms,
        load_mj=energies.load_mj,
        selection_mj=energies.selection_mj,
        training_mj=energies.training_mj,
        swap_mj=energies.swap_mj,
        energy_mj=energies.total_mj,
        energy_low_mj=ends.energy_low_mj,
        energy_high_mj=ends.energy_high_mj,
        fits=fits_device(profile, peak_bytes=(peak_low, peak_high), flash_bytes=flash),
        ram_margin_bytes=ram_margin,
        flash_margin_bytes=flash_margin,
        extrapolated=", ".join(beyond),
        standing=standing_word(profile, trains=trains, farthest=farthest),
    )


def macs_by_name(macs: Macs) -> dict[str, float]:
    """Return the MACs of one image by the names of the totals of training rows."""
    return {
        "forward_macs": macs.forward, "backward_macs": macs.backward, "input_grad_macs": macs.input_grad,
        "weight_grad_macs": macs.weight_grad,
    }  # fmt: skip


def num_passes(plan: UpdatePlan, workload: Workload) -> int:
    """Return the passes of a batch in one adaptation: what exceeds the RAM is moved once in each."""
    if not workload.trains(plan):
        return num_batches(workload.support_size, workload)
    again = num_batches(workload.recomputed_images, workload)
    return workload.iterations * (2 * num_batches(workload.step_images, workload) + again)


def num_batches(images: int, workload: Workload) -> int:
    """Return the batches that ``images`` pass in; the last may be smaller."""
    return -(-images // workload.batch)


def selection_macs(graph: LayerGraph, workload: Workload) -> int:
    """Return the MACs of the Fisher pass over the task: support and pseudo-query images."""
    return workload.step_images * fisher_macs(graph, workload.inspected)


def training_macs(graph: LayerGraph, plan: UpdatePlan, workload: Workload) -> int:
    """Return the MACs of all iterations, or of the prototypes where nothing is trained.

    The second forward pass of the support images is in it (``Workload.recomputed_images``).
    """
    macs = plan_macs(graph, plan)
    if not workload.trains(plan):
        return workload.support_size * macs.forward
    step = workload.step_images * (macs.forward + macs.backward) + workload.recomputed_images * macs.forward
    return workload.iterations * step


def phase_times(
    graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile, workload: Workload, *, missing_bytes: int
) -> PhaseTimes:
    """Return the time of each phase; ``missing_bytes`` of RAM go to storage and back in every batch."""
    bare = without_launches(profile)
    whole = body = _image_times(graph, plan, profile, workload.inspected)
    if bare is not profile:
        body = _image_times(graph, plan, bare, workload.inspected)

    def passed(kind: str, images: int) -> float:
        launches = getattr(whole, kind) - getattr(body, kind)
        return float(images * getattr(body, kind) + num_batches(images, workload) * launches)

    if workload.trains(plan):
        step = passed("both_ms", workload.step_images) + passed("forward_ms", workload.recomputed_images)
        step += optimizer_step_ms(graph, plan, profile, optimizer=workload.optimizer)
        step += adapter_optimizer_ms(graph, plan, profile, optimizer=workload.optimizer)
        training = workload.iterations * step
    else:
        training = passed("forward_ms", workload.support_size)
    return PhaseTimes(
        load_ms=load_ms(graph, plan, profile, stored_bytes=stored_parameter_bytes(graph, profile, plan)),
        selection_ms=passed("fisher_ms", workload.step_images),
        training_ms=training,
        swap_ms=num_passes(plan, workload) * transfer_ms(missing_bytes, profile),
    )


@dataclass(frozen=True, kw_only=True)
class _ImageTimes:
    forward_ms: float
    both_ms: float
    fisher_ms: float


def _image_times(
    graph: LayerGraph, plan: UpdatePlan, profile: DeviceProfile, inspected: tuple[int, ...]
) -> _ImageTimes:
    added = adapter_pass(graph, plan, profile)
    return _ImageTimes(
        forward_ms=forward_ms(graph, profile) + added.forward_ms,
        both_ms=image_pass(graph, plan, profile).total_ms + added.total_ms,
        fisher_ms=fisher_pass_ms(graph, inspected, profile),
    )
