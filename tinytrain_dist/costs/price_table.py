"""Prices of many (plan, device) cells at once: columns in, columns out, equal to ``price`` cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.costs.counters import STATE_WORD_BYTES
from tinytrain_dist.costs.energy import PhaseTimes, phase_energies
from tinytrain_dist.costs.extrapolation import (
    BACKWARD_TOTALS,
    FAR,
    TOLERANCE,
    beyond,
    forward_distances,
    network_operations,
)
from tinytrain_dist.costs.fit import ADAPTER_GAP_PERCENT, COUNTER_ERRORS, fixed_bytes, limit_bytes
from tinytrain_dist.costs.intervals import Spans, factors, spans
from tinytrain_dist.costs.latency import without_launches
from tinytrain_dist.costs.latency_forms import NS_PER_MS
from tinytrain_dist.costs.lifetime import lifetime_totals
from tinytrain_dist.costs.lifetime_graph import INT8_RUNTIME, RuntimeRules
from tinytrain_dist.costs.macs import fisher_macs
from tinytrain_dist.costs.plan_arrays import Flags, Ints, PlanArrays
from tinytrain_dist.costs.plan_features import PlanFeatures, plan_features
from tinytrain_dist.costs.plan_times import PlanTimes, plan_times, update_shares
from tinytrain_dist.costs.pricing import Price, phase_of, standing_word
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.costs.workload import PAPER_IMAGES, Workload
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.graphs.layer_graph import LayerGraph

Column = NDArray[Any]
CELL_COLUMNS = ("plan", "device", "support_size", "iterations")
_TEXTS = {"fit_counter", "price_numerics", "fits", "extrapolated", "standing"}


def price_table(
    graph: LayerGraph,
    cells: Mapping[str, Column],
    *,
    plans: PlanArrays,
    profiles: Sequence[DeviceProfile],
    workload: Workload,
) -> dict[str, Column]:
    """Return the columns of ``Price`` for every cell, ``[num_cells]`` each.

    Parameters
    ----------
    cells
        ``plan`` and ``device``: places in ``plans`` and ``profiles``. ``support_size`` and ``iterations`` where they
        differ between cells; else those of ``workload``, which gives everything else.

    Returns
    -------
    dict
        Texts as objects; NaN where ``Price`` has ``None`` (unknown power, unknown flash).

    Raises
    ------
    ConfigError
        Columns that are unknown, missing or of different lengths, or a number outside its range.
    """
    given = _checked(cells, plans, profiles, workload)
    batches = _batches(given, plans, workload)
    if (batches < workload.batch).any():
        return _by_batch(graph, given, batches, plans=plans, profiles=profiles, workload=workload)
    features = plan_features(graph, plans, workload)
    counted = _counted(graph, plans, features, profiles, workload)
    table = _empty(len(given["plan"]))
    for name, values in features.columns.items():
        table[name][:] = values[given["plan"]]
    table["batch"][:] = workload.batch
    table["fisher_macs"][:] = _step_images(given, workload) * fisher_macs(graph, workload.inspected)
    shares = update_shares(plans)
    for place in np.unique(given["device"]):
        rows = np.flatnonzero(given["device"] == place)
        profile, here = profiles[place], {name: values[rows] for name, values in given.items()}
        times = tuple(
            plan_times(graph, plans, shares, by, workload) for by in dict.fromkeys((profile, without_launches(profile)))
        )
        own = counted[profile.fit_counter]
        gaps = _gaps(plans, own, profile, workload)
        found = _device_columns(graph, here, features, (own, gaps), times, profile, workload)
        for name, values in found.items():
            table[name][rows] = values
    return table


def _batches(cells: Mapping[str, Ints], plans: PlanArrays, workload: Workload) -> Ints:
    """Return the images that pass at once, of every cell: as ``Workload.at_once`` says."""
    if workload.paper_convention:
        return np.full(len(cells["plan"]), workload.batch)
    changes = (plans.start < plans.weights.shape[1])[cells["plan"]]
    trains = changes & (cells["iterations"] > 0)
    there = np.where(trains, _step_images(cells, workload), cells["support_size"])
    return np.minimum(workload.batch, there)


def _by_batch(
    graph: LayerGraph,
    cells: Mapping[str, Ints],
    batches: Ints,
    *,
    plans: PlanArrays,
    profiles: Sequence[DeviceProfile],
    workload: Workload,
) -> dict[str, Column]:
    table = _empty(len(batches))
    for batch in np.unique(batches):
        rows, own = np.flatnonzero(batches == batch), replace(workload, batch=int(batch))
        here = {name: values[rows] for name, values in cells.items()}
        for name, values in price_table(graph, here, plans=plans, profiles=profiles, workload=own).items():
            table[name][rows] = values
    return table


def _empty(num_cells: int) -> dict[str, Column]:
    floats = {"flash_margin_bytes"}
    dtypes = {
        field.name: object if field.name in _TEXTS
        else np.float64 if field.name.endswith(("_ms", "_mj")) or field.name in floats else np.int64
        for field in fields(Price)
    }  # fmt: skip
    return {name: np.empty(num_cells, dtype) for name, dtype in dtypes.items()}


def _checked(
    cells: Mapping[str, Column], plans: PlanArrays, profiles: Sequence[DeviceProfile], workload: Workload
) -> dict[str, Ints]:
    for name in cells:
        if name not in CELL_COLUMNS:
            raise ConfigError(f"price table: unknown column {name!r}; {nearest(name, CELL_COLUMNS)}")
    for name in CELL_COLUMNS[:2]:
        if name not in cells:
            raise ConfigError(f"price table: column {name!r} is missing")
    num = len(cells["plan"])
    limits = {"plan": (0, len(plans.start)), "device": (0, len(profiles))}
    given: dict[str, Ints] = {}
    for name in CELL_COLUMNS:
        values = np.asarray(cells.get(name, np.full(num, getattr(workload, name, 0))))
        if values.shape != (num,) or not np.issubdtype(values.dtype, np.integer):
            raise ConfigError(f"price table: column {name!r}: {values.dtype}{values.shape}; allowed: {num} integers")
        low, high = limits.get(name, (int(name == "support_size"), 2**31))
        if num and not (low <= values.min() and values.max() < high):
            raise ConfigError(f"price table: column {name!r}: found {values.min()} to {values.max()}; "
                              f"allowed {low} to {high - 1}")  # fmt: skip
        given[name] = values.astype(np.int64, copy=False)
    return given


def _counted(
    graph: LayerGraph,
    plans: PlanArrays,
    features: PlanFeatures,
    profiles: Sequence[DeviceProfile],
    workload: Workload,
) -> dict[str, Ints]:
    counted = {"paper_fp32": features.paper_memory}
    if any(profile.fit_counter == "lifetime_int8" for profile in profiles):
        rules = RuntimeRules(**{**INT8_RUNTIME.__dict__, "fused_update": workload.fused_update})
        counted["lifetime_int8"] = lifetime_totals(
            graph, plans, rules=rules, optimizer=workload.optimizer, batch=workload.batch, way=workload.way,
            inspected=workload.inspected,
        )  # fmt: skip
    return counted


def _step_images(cells: Mapping[str, Ints], workload: Workload) -> Ints:
    if workload.paper_convention:
        return np.full(len(cells["plan"]), PAPER_IMAGES)
    return 2 * cells["support_size"] + workload.extra_images


def _device_columns(
    graph: LayerGraph,
    cells: Mapping[str, Ints],
    features: PlanFeatures,
    memory: tuple[Ints, Ints],
    times: tuple[PlanTimes, ...],
    profile: DeviceProfile,
    workload: Workload,
) -> dict[str, Any]:
    plan, (counted, gaps) = cells["plan"], memory
    weights = graph.weights + features.module_weights
    norms = graph.norm_parameters + features.module_norms
    stored = (weights * profile.bytes_per_element + norms * STATE_WORD_BYTES)[plan]
    peak, flash = counted[plan] + fixed_bytes(graph, profile), stored + profile.code_allowance_bytes
    margin, verdict = profile.ram_bytes - peak, _verdict(profile, peak, flash, gap=gaps[plan])
    trains = (cells["iterations"] > 0) & ~features.empty[plan]
    phases, passes, macs = _phases(
        cells, features, times, profile, workload, trains,
        load_ms=_load_ms(graph, features, plan, profile, stored=stored), missing=np.maximum(0, -margin),
    )  # fmt: skip
    energies = phase_energies(phases, profile)
    per_byte = _ms_per_byte(profile)
    swaps = tuple(
        passes * (np.maximum(0, verdict[f"peak_{end}_bytes"] - profile.ram_bytes) * per_byte) for end in ("low", "high")
    )
    columns = {
        **verdict,
        "fit_counter": profile.fit_counter, "price_numerics": profile.price_numerics,
        "peak_bytes": peak, "flash_bytes": flash, "ram_margin_bytes": margin, "training_macs": macs,
        "load_ms": phases.load_ms, "selection_ms": phases.selection_ms, "training_ms": phases.training_ms,
        "swap_ms": phases.swap_ms, "latency_ms": phases.total_ms, "load_mj": energies.load_mj,
        "selection_mj": energies.selection_mj, "training_mj": energies.training_mj, "swap_mj": energies.swap_mj,
        "energy_mj": energies.total_mj, **_intervals(graph, features, plan, trains, phases, swaps, profile),
    }  # fmt: skip
    return {name: np.nan if values is None else values for name, values in columns.items()}


def _ms_per_byte(profile: DeviceProfile) -> float:
    return 0.0 if profile.storage_bandwidth_bytes_per_s == 0 else 1e3 / profile.storage_bandwidth_bytes_per_s


def _load_ms(graph: LayerGraph, features: PlanFeatures, plan: Ints, profile: DeviceProfile, *, stored: Ints) -> Column:
    measured = profile.phases.get("load")
    if measured is None:
        return np.asarray(stored * _ms_per_byte(profile))
    parameters = (graph.parameters + features.module_weights + features.module_norms)[plan]
    return np.asarray((measured.get("passes", 0.0) + parameters * measured.get("weights", 0.0)) / NS_PER_MS)


def _standing(profile: DeviceProfile, trains: Flags, farthest: Column) -> Column:
    training, forward = (np.array(standing_word(profile, trains=word), object) for word in (True, False))
    return np.where(farthest > FAR, np.array("estimate", object), np.where(trains, training, forward))


def _intervals(
    graph: LayerGraph,
    features: PlanFeatures,
    plan: Ints,
    trains: Flags,
    phases: PhaseTimes,
    swaps: tuple[Column, ...],
    profile: DeviceProfile,
) -> dict[str, Any]:
    """Return the ends of time and energy, what is extrapolated, and the word; a cell trains or passes forward only."""
    forward = forward_distances(profile, network_operations(graph))
    farthest = max([1.0, *forward.values()])
    names, distances = _training_distances(features, forward, profile)
    trained = np.maximum(distances, farthest)[plan]
    found = {
        True: factors(profile, phase=phase_of(trains=True), farthest=trained),
        False: factors(profile, phase=phase_of(trains=False), farthest=farthest),
    }
    both = {word: spans(phases, (swaps[0], swaps[1]), profile, found[word]) for word in (True, False)}
    ends = {
        field.name: None
        if getattr(both[True], field.name) is None
        else np.where(trains, getattr(both[True], field.name), getattr(both[False], field.name))
        for field in fields(Spans)
    }
    ends["standing"] = _standing(profile, trains, np.where(trains, trained, farthest))
    return ends | {"extrapolated": np.where(trains, names[plan], np.array(", ".join(forward), object))}


def _training_distances(
    features: PlanFeatures, forward: Mapping[str, float], profile: DeviceProfile
) -> tuple[Column, Column]:
    """Return, of every plan, the names of what lies outside the rows, and the largest distance of the training MACs."""
    totals = {
        "forward_macs": features.forward_macs, "backward_macs": features.backward_macs,
        "input_grad_macs": features.columns["input_grad_macs"],
        "weight_grad_macs": features.columns["weight_grad_macs"],
    }  # fmt: skip
    num = len(features.forward_macs)
    names, farthest = np.full(num, ", ".join(forward), object), np.ones(num)
    training = profile.calibration.training
    for name, (low, high) in ({} if training is None else training.measured_range).items():
        found = beyond(totals[name], low, high, only_above=name in BACKWARD_TOTALS)
        far = found > TOLERANCE
        names[far] = [f"{text}, {name}" if text else name for text in names[far]]
        farthest = np.where(far, np.maximum(farthest, found), farthest)
    return names, farthest


def _phases(
    cells: Mapping[str, Ints],
    features: PlanFeatures,
    times: tuple[PlanTimes, ...],
    profile: DeviceProfile,
    workload: Workload,
    trains: Flags,
    *,
    load_ms: Column,
    missing: Ints,
) -> tuple[PhaseTimes, Ints, Ints]:
    """Return the time of each phase, passes of a batch, MACs of the training phase; ``PhaseTimes`` holds vectors."""
    plan, support, iterations = cells["plan"], cells["support_size"], cells["iterations"]
    images = _step_images(cells, workload)
    again = support * ((workload.batch < images) & (not workload.paper_convention))
    whole, body = times[0], times[-1]

    def batches(count: Ints) -> Ints:
        return -(-count // workload.batch)

    def passed(kind: str, count: Ints) -> Column:
        """Return the time of ``count`` images per cell: what an image takes, and what a batch launches once."""
        with_launches, without = (np.broadcast_to(getattr(by, kind), len(whole.image_ms)) for by in (whole, body))
        found: Column = count * without[plan]
        return found if whole is body else found + batches(count) * (with_launches - without)[plan]

    step = passed("image_ms", images) + passed("forward_ms", again) + whole.optimizer_ms[plan]
    passes = iterations * (2 * batches(images) + batches(again))
    passes = np.where(trains, passes, batches(support))
    per_byte = _ms_per_byte(profile)
    macs = features.forward_macs[plan]
    both = iterations * (images * (macs + features.backward_macs[plan]) + again * macs)
    phases: dict[str, Any] = {
        "load_ms": load_ms,
        "selection_ms": passed("fisher_ms", images),
        "training_ms": np.where(trains, iterations * step, passed("forward_ms", support)),
        "swap_ms": passes * (missing * per_byte),
    }
    return PhaseTimes(**phases), passes, np.where(trains, both, support * macs)


def _gaps(plans: PlanArrays, counted: Ints, profile: DeviceProfile, workload: Workload) -> Ints:
    if workload.full or profile.fit_counter != "paper_fp32":
        return np.zeros_like(counted)
    return np.where(plans.adapters.any(axis=1), ADAPTER_GAP_PERCENT * counted // 100, 0)


def _verdict(profile: DeviceProfile, peak: Ints, flash: Ints, *, gap: Ints) -> dict[str, Any]:
    error, half = COUNTER_ERRORS[profile.fit_counter], profile.code_allowance_bytes // 2
    low, high = error.low_percent * peak // 100, -(-error.high_percent * peak // 100) + gap
    sure, at_most = limit_bytes(profile, "ram_bytes")
    yes, no = high <= sure, low > at_most
    margin = None
    if profile.flash_bytes is not None:
        margin = profile.flash_bytes - flash
        sure, at_most = limit_bytes(profile, "flash_bytes")
        yes, no = yes & (flash + half <= sure), no | (flash - half > at_most)
    return {
        "peak_low_bytes": low, "peak_high_bytes": high, "flash_margin_bytes": margin,
        "fits": np.where(no, "no", np.where(yes, "yes", "uncertain")).astype(object),
    }  # fmt: skip
