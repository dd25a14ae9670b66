"""One choice of an advice: a device, a method and its budget, with every number's interval and standing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinytrain_dist.reporting.advice_sizing import new_pictures_interval
from tinytrain_dist.reporting.comparison import ADAPTATION, ComparisonRow
from tinytrain_dist.reporting.intervals import Estimate, Moments, t_interval
from tinytrain_dist.reporting.labels import adaptation_key
from tinytrain_dist.reporting.runs import RunResults

Key = tuple[str | None, ...]
Accuracies = Mapping[Key, Mapping[str, float]]
"""(device, backbone, initialization, checkpoint, method, variant) -> task -> accuracy."""

_TAKEN = (
    "backbone", "initialization", "checkpoint", "method", "variant", "num_tasks", "accuracy_mean", "accuracy_low",
    "accuracy_high", "gain_points", "gain_low_points", "gain_high_points", "gain_p_holm", "latency_p50_ms",
    "latency_low_ms", "latency_high_ms", "latency_p95_ms", "latency_error_factor", "energy_p50_mj", "energy_low_mj",
    "energy_high_mj", "energy_p95_mj", "energy_error_factor", "peak_p50_bytes", "ram_bytes", "ram_margin_bytes",
    "standing", "extrapolated", "extrapolated_share", "accuracy_numerics", "price_numerics", "numerics_differ",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An admissible choice.

    Accuracies are shares with 95 % intervals: ``accuracy_low`` and ``accuracy_high`` over tasks drawn from the given
    pictures, ``new_pictures_low`` and ``new_pictures_high`` for other pictures of the same kind. Times and energies
    are medians over tasks, their ends the price model's own. ``loss_points``: the best choice's accuracy minus this
    one's, paired on the same tasks. ``budget_*``: medians over tasks, None for a method without a budget;
    ``ram_margin_bytes``: the smallest over tasks.
    """

    device: str
    label: str
    backbone: str
    initialization: str
    checkpoint: str
    method: str
    variant: str
    num_tasks: int
    accuracy_mean: float
    accuracy_low: float | None
    accuracy_high: float | None
    new_pictures_low: float
    new_pictures_high: float
    loss_points: float
    loss_low_points: float | None
    loss_high_points: float | None
    gain_points: float | None
    gain_low_points: float | None
    gain_high_points: float | None
    gain_p_holm: float | None
    latency_p50_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_p95_ms: float | None
    latency_error_factor: float | None
    energy_p50_mj: float | None
    energy_low_mj: float | None
    energy_high_mj: float | None
    energy_p95_mj: float | None
    energy_error_factor: float | None
    peak_p50_bytes: float | None
    ram_bytes: int | None
    ram_margin_bytes: int | None
    standing: str
    extrapolated: str
    extrapolated_share: float | None
    accuracy_numerics: str
    price_numerics: str
    numerics_differ: bool
    budget_memory_bytes: float | None
    budget_backward_macs: float | None
    updated_weights: float
    updated_layers: float
    iterations: int
    support_size: float


def choice_of(
    run: RunResults,
    row: ComparisonRow,
    *,
    label: str,
    best: ComparisonRow,
    accuracies: Accuracies,
    num_judged: int,
) -> Choice:
    """Return a line as a choice.

    Parameters
    ----------
    best
        The best admissible line.
    num_judged
        Different pictures the tasks judge.
    """
    loss = paired_loss(accuracies[line_key(best)], accuracies[line_key(row)])
    low, high = new_pictures_interval(row.accuracy_mean or 0.0, num_judged)
    return Choice(
        device=str(row.device), label=label, **{name: getattr(row, name) for name in _TAKEN},
        new_pictures_low=low, new_pictures_high=high,
        loss_points=loss.mean, loss_low_points=loss.low, loss_high_points=loss.high, **_plan_of(run, row),
    )  # fmt: skip


def line_key(row: ComparisonRow) -> Key:
    """Return the key of a line's accuracies."""
    return (row.device, *adaptation_key(row))


def task_accuracies(run: RunResults) -> Accuracies:
    """Return the accuracy of every finished row on a device."""
    names = ("device", *ADAPTATION)
    found: dict[Key, dict[str, float]] = {}
    for row in run.select(f"SELECT {', '.join(names)}, task_id, accuracy_after FROM rows WHERE ok AND device <> ''"):
        found.setdefault(tuple(row[name] for name in names), {})[row["task_id"]] = row["accuracy_after"]
    return found


def paired_loss(best: Mapping[str, float], other: Mapping[str, float]) -> Estimate:
    """Return the best's accuracy minus the other's, in points, over the tasks both finished; 0 for one with itself."""
    gaps = sorted(100 * (best[task] - other[task]) for task in best.keys() & other.keys())
    found = t_interval(*_moments(gaps))
    assert found is not None, "admissible lines stand on the same tasks"
    return found


def _moments(values: Sequence[float]) -> tuple[float | None, float | None, int]:
    found = Moments(len(values), sum(values) / len(values) if values else None, None)
    if found.mean is None or found.num < 2:
        return found.mean, None, found.num
    variance = sum((value - found.mean) ** 2 for value in values) / (found.num - 1)
    return found.mean, variance**0.5, found.num


def _plan_of(run: RunResults, row: ComparisonRow) -> dict[str, Any]:
    same = " AND ".join(f"{name} IS NOT DISTINCT FROM ?" for name in ("device", *ADAPTATION))
    found = run.select(
        "SELECT median(budget_memory_bytes) AS budget_memory_bytes,"
        " median(budget_backward_macs) AS budget_backward_macs,"
        " median(coalesce(updated_weights, 0)) AS updated_weights,"
        " median(coalesce(len(plan_layers), 0)) AS updated_layers, max(iterations) AS iterations,"
        f" median(support_size) AS support_size FROM rows WHERE ok AND {same}",
        list(line_key(row)),
    )
    return found[0]
