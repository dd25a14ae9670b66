"""One line of the planner's table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tinytrain_dist.reporting.comparison_query import JOINT, RESOURCES, SHARES, TIMED, known_quantile
from tinytrain_dist.reporting.intervals import IntervalKind

EXTRAPOLATED = "extrapolated"
"""Stands in a standing where a total of a task lies outside what was measured on the device."""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One line of the table. Accuracies are shares (0 to 1), gains absolute points, None = not known.

    ``accuracy_*`` covers every finished task, all tasks alike (an infeasible one keeps its accuracy before the
    update); ``accuracy_domain_*`` is the mean of the domains' means; ``accuracy_where_fits_*`` covers only the tasks
    whose plan fits the device. ``interval`` says which 95 % interval stands around them. ``gain_p_value`` is a paired
    t test against no gain, ``gain_p_holm`` the same corrected over the adaptations at one place.

    ``fits_share``, ``uncertain_share`` and ``num_infeasible`` count finished task and device pairs; a pair whose fit is
    uncertain is in neither ``fits_share`` nor ``accuracy_where_fits_*``. ``fits_ram_share`` and the like are over the
    rows with a plan, one resource each (time and energy only under a limit); ``limiting`` is the resource that
    decides, and the margins are the smallest over the tasks (negative: missing).

    ``num_inapplicable`` rows are of a method that has nothing to update on this network, for the reason
    ``inapplicable`` (None: there are none): no result, no failure, in no mean and no share.

    Costs (only by device) cover the finished tasks that have a plan; a p95 needs 59 of them, a p99 299.
    ``latency_low_ms`` and the like are medians of the ends of the price model's own interval,
    ``latency_error_factor`` the median of upper end over estimate, ``latency_worst_ms`` the largest upper end of a
    task: what a limit is held against (None where no task has a price). ``extrapolated_share``: the part of the tasks
    with a plan for which a total lies outside what was measured on the device (None: the run does not say),
    ``extrapolated`` the names of those totals; ``standing`` then says so too. ``versus_*``: this line minus the same
    adaptation in run ``versus_run``, in points, paired on the same tasks.
    """

    device: str | None
    domain: str | None
    way: str | None
    shot: str | None
    resolution: str | None
    mode: str | None
    backbone: str | None
    initialization: str | None
    checkpoint: str | None
    method: str
    variant: str
    num_tasks: int
    num_domains: int
    num_rows: int
    num_failed: int
    num_infeasible: int
    num_inapplicable: int
    inapplicable: str | None
    failed_share: float
    fits_share: float | None
    uncertain_share: float | None
    fits_ram_share: float | None
    fits_flash_share: float | None
    fits_time_share: float | None
    fits_energy_share: float | None
    limiting: str | None
    accuracy_mean: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    accuracy_domain_mean: float | None
    accuracy_domain_low: float | None
    accuracy_domain_high: float | None
    num_tasks_where_fits: int
    accuracy_where_fits_mean: float | None
    accuracy_where_fits_low: float | None
    accuracy_where_fits_high: float | None
    num_pairs: int
    gain_points: float | None
    gain_low_points: float | None
    gain_high_points: float | None
    gain_domain_points: float | None
    gain_domain_low_points: float | None
    gain_domain_high_points: float | None
    gain_p_value: float | None
    gain_p_holm: float | None = None
    interval: IntervalKind
    num_priced: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_error_factor: float | None
    latency_worst_ms: float | None
    num_energy_priced: int
    energy_p50_mj: float | None
    energy_p95_mj: float | None
    energy_p99_mj: float | None
    energy_low_mj: float | None
    energy_high_mj: float | None
    energy_error_factor: float | None
    energy_worst_mj: float | None
    peak_p50_bytes: float | None
    peak_p95_bytes: float | None
    peak_p99_bytes: float | None
    ram_bytes: int | None
    device_ram_bytes: int | None
    ram_margin_bytes: int | None
    flash_margin_bytes: float | None
    time_margin_ms: float | None
    energy_margin_mj: float | None
    selection_share: float | None
    batch: str
    fit_counter: str
    standing: str
    extrapolated: str
    extrapolated_share: float | None
    accuracy_numerics: str
    price_numerics: str
    run: str | None = None
    versus_run: str | None = None
    num_versus_pairs: int = 0
    versus_points: float | None = None
    versus_low_points: float | None = None
    versus_high_points: float | None = None
    versus_p_holm: float | None = None

    @property
    def numerics_differ(self) -> bool:
        """Return whether the accuracy was computed in another arithmetic than the device is priced in."""
        return self.backbone is not None and self.accuracy_numerics != self.price_numerics

    @property
    def is_inapplicable(self) -> bool:
        """Return whether the method has nothing to update on this network: the line holds no result."""
        return self.inapplicable is not None and self.num_tasks == 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return dataclasses.asdict(self)


def range_fields(found: dict[str, Any]) -> dict[str, Any]:
    """Return ``standing``, marked where a price leaves the measured range, and what is outside it."""
    names = sorted({name for words in found["extrapolated"].split(JOINT) for name in words.split(", ") if name})
    judged = found["num_judged_range"]
    return {
        "standing": found["standing"] + (f", {EXTRAPOLATED}" if names else ""),
        "extrapolated": ", ".join(names),
        "extrapolated_share": found["num_extrapolated"] / judged if judged else None,
    }


_PLAIN = {
    "ram_bytes": "ram_bytes", "device_ram_bytes": "device_ram_bytes", "ram_margin_bytes": "ram_margin",
    "flash_margin_bytes": "flash_margin",
    "time_margin_ms": "time_margin", "energy_margin_mj": "energy_margin", "selection_share": "selection_share",
    "latency_error_factor": "latency_error_factor", "energy_error_factor": "energy_error_factor",
    "latency_worst_ms": "latency_worst_ms", "energy_worst_mj": "energy_worst_mj",
}  # fmt: skip


def cost_fields(found: dict[str, Any] | None) -> dict[str, Any]:
    """Return the cost fields of a line; ``None`` where the line spans devices, whose costs nobody may average."""
    timed = {f"{phase}_{end}_{unit}": f"{phase}_{end}_{unit}" for phase, unit in TIMED for end in ("low", "high")}
    names = _PLAIN | timed
    quantiles = [(p, u, w) for p, u in (*TIMED, ("peak", "bytes")) for w in SHARES]
    if found is None:
        empty = dict.fromkeys((*names, *(f"{phase}_{word}_{unit}" for phase, unit, word in quantiles)))
        return {**empty, "num_priced": 0, "num_energy_priced": 0}
    counts = {"num_priced": found["num_priced"], "num_energy_priced": found["num_energy_priced"]}
    fields = {name: found[source] for name, source in names.items()}
    for phase, unit, word in quantiles:
        place = list(SHARES).index(word)
        num = counts["num_energy_priced" if phase == "energy" else "num_priced"]
        values = found[f"{phase}_quantiles_{unit}"]
        fields[f"{phase}_{word}_{unit}"] = known_quantile(values[place] if values else None, word, num)
    return fields | counts


def limiting(found: dict[str, Any]) -> str | None:
    """Return what decides the fit: the resource that fails most rows, else leaves most of them uncertain.

    ``infeasible`` where most of what does not fit has no plan at all; None where everything fits.
    """
    failing = {"infeasible": found["num_infeasible"]} | {name: found[f"{name}_no"] for name in RESOURCES}
    unsure = {name: found[f"{name}_uncertain"] for name in RESOURCES}
    for counts in (failing, unsure):
        most = max(counts, key=lambda name: counts[name])
        if counts[most]:
            return most
    return None
