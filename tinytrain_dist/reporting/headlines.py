"""The run in a few sentences, every figure computed from its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tinytrain_dist.reporting import formatting
from tinytrain_dist.reporting.admissible import admissible
from tinytrain_dist.reporting.comparison import ComparisonRow
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.pareto import choices
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.views import BASELINE, NETWORK_FREE


def headlines(run: RunResults, by_device: Sequence[ComparisonRow], by_method: Sequence[ComparisonRow]) -> list[str]:
    """Return what the run covers, what each method gains and where it fits, and the best choice per device."""
    labels = adaptation_labels(by_device)
    fits = _full_fits(by_device)
    gains = [_gain_sentence(row, labels[adaptation_key(row)], fits) for row in by_method if _adapts(row)]
    return [_coverage(run), *gains, *_best_choices(by_device, labels), *_knees(by_device)]


def _knees(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return the knee of the front of accuracy against energy (time where no energy is known), over all devices."""
    for cost, text in (("energy", formatting.energy), ("latency", formatting.duration)):
        found = choices(rows, cost)
        front = [choice for choice in found if choice.on_front]
        knee = next((choice for choice in front if choice.knee), None)
        if knee is not None:
            spent = "time" if cost == "latency" else cost
            return [
                f"Accuracy against {spent}: {len(front)} of {_counted(len(found), 'fitting choice')} are beaten by no "
                f"other; the knee is {knee.label} on {knee.device}, {formatting.percent(knee.accuracy_mean)} % for "
                f"{text(knee.value)}."
            ]
    return []


def _adapts(row: ComparisonRow) -> bool:
    return row.method not in (BASELINE, NETWORK_FREE) and row.gain_points is not None


def _coverage(run: RunResults) -> str:
    found = run.select(
        "SELECT count(*) AS num_rows, count(*) FILTER (WHERE NOT ok) AS failed, count(DISTINCT task_id) AS tasks,"
        " count(DISTINCT domain) AS domains, count(DISTINCT device) AS devices, count(DISTINCT method) AS methods,"
        " string_agg(DISTINCT backbone || ' (' || initialization || ')', ', ') AS networks FROM rows"
    )[0]
    text = ", ".join(_counted(found[f"{word}s"], word) for word in ("task", "domain", "device", "method"))
    networks = ", ".join(sorted(str(found["networks"] or "").split(", ")))
    once = ", raw_pixels counted once per task" if found["num_rows"] < run.num_rows else ""
    failed = f"{found['failed']} of {found['num_rows']} rows failed" if found["failed"] else "no row failed"
    return f"{text}; network {networks or 'none'}; {failed}{once}."


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _full_fits(rows: Sequence[ComparisonRow]) -> dict[tuple[str | None, ...], tuple[int, int]]:
    """Return, per adaptation, on how many devices every task fits, and on how many it was tried."""
    found: dict[tuple[str | None, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    sure = {id(row) for row in admissible(rows)}
    for row in rows:
        full, tried = found[adaptation_key(row)]
        found[adaptation_key(row)] = (full + (id(row) in sure), tried + 1)
    return found


def _gain_sentence(row: ComparisonRow, label: str, fits: dict[tuple[str | None, ...], tuple[int, int]]) -> str:
    full, tried = fits[adaptation_key(row)]
    assert row.gain_points is not None
    if row.gain_low_points is None or row.gain_high_points is None:
        text = f"{row.gain_points:+.1f} points over no update on a single task"
    else:
        text = (
            f"{row.gain_points:+.1f} points over no update"
            f" (95 % interval {row.gain_low_points:+.1f} to {row.gain_high_points:+.1f}, {row.num_pairs} tasks)"
        )
        text += "" if row.gain_low_points * row.gain_high_points > 0 else ", not distinguishable from zero"
    return f"{label}: {text}; every task fits on {full} of {_counted(tried, 'device')}."


def _best_choices(rows: Sequence[ComparisonRow], labels: dict[tuple[str | None, ...], str]) -> list[str]:
    """Return one sentence per best adaptation: the devices on which it is the best that always fits."""
    best: dict[str, list[ComparisonRow]] = defaultdict(list)
    devices = sorted({row.device for row in rows if row.device is not None})
    for device in devices:
        fitting = [row for row in admissible(rows) if row.device == device]
        if fitting:
            top = max(fitting, key=lambda row: (row.accuracy_mean or 0.0, labels[adaptation_key(row)]))
            best[labels[adaptation_key(top)]].append(top)
    return [_best_sentence(label, chosen, len(devices)) for label, chosen in sorted(best.items())]


def _best_sentence(label: str, chosen: list[ComparisonRow], num_devices: int) -> str:
    cheapest = min(chosen, key=lambda row: row.latency_p50_ms or float("inf"))
    dearest = max(chosen, key=lambda row: row.latency_p50_ms or float("-inf"))
    ends = sorted({formatting.duration(cheapest.latency_p50_ms), formatting.duration(dearest.latency_p50_ms)})
    span = f"{formatting.duration(cheapest.latency_p50_ms)} ({cheapest.device})"
    if len(ends) > 1:
        span += f" to {formatting.duration(dearest.latency_p50_ms)} ({dearest.device})"
    names = ", ".join(str(row.device) for row in chosen)
    where = f"all {num_devices} devices" if len(chosen) == num_devices > 1 else names
    return f"Highest mean accuracy among what fits every task: {label} on {where}, median time per task {span}."
