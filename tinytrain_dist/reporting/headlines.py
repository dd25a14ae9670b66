"""The run in a few sentences, every figure computed from its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tinytrain_dist.reporting import formatting
from tinytrain_dist.reporting.admissible import admissible
from tinytrain_dist.reporting.comparison import ComparisonRow, joined
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.multiplicity import ALPHA
from tinytrain_dist.reporting.pareto import choices
from tinytrain_dist.reporting.runner_up import Contest, contests
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.views import BASELINE, NETWORK_FREE


def headlines(run: RunResults, by_device: Sequence[ComparisonRow], by_method: Sequence[ComparisonRow]) -> list[str]:
    """Return what the run covers, what each method gains and where it fits, and the best choice per device."""
    labels = adaptation_labels(by_device)
    fits = _full_fits(by_device)
    gains = [_gain_sentence(row, labels[adaptation_key(row)], fits) for row in by_method if _adapts(row)]
    return [_coverage(run), *gains, *_best_choices(run, by_device, labels), *_knees(by_device)]


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
                f"other; the knee is {knee.label} on {knee.device}, "
                f"{formatting.percent_interval(knee.accuracy_mean, knee.accuracy_high, knee.accuracy_low)} % for "
                f"{text(knee.value)} ({text(knee.value_low)} to {text(knee.value_high)}, {knee.standing})."
            ]
    return []


def _adapts(row: ComparisonRow) -> bool:
    return row.method not in (BASELINE, NETWORK_FREE) and row.gain_points is not None


def _coverage(run: RunResults) -> str:
    found = run.select(
        "SELECT count(*) AS num_rows, count(*) FILTER (WHERE failed) AS failed, count(DISTINCT task_id) AS tasks,"
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
        sure = row.gain_p_holm is not None and row.gain_p_holm < ALPHA
        text += "" if sure else ", not distinguishable from zero" + _corrected(row)
    return f"{label}: {text}; every task fits on {full} of {_counted(tried, 'device')}."


def _corrected(row: ComparisonRow) -> str:
    """Say so where the interval alone would call it distinguishable."""
    excludes = (row.gain_low_points or 0.0) * (row.gain_high_points or 0.0) > 0
    return f" once corrected for the methods compared (p {formatting.probability(row.gain_p_holm)})" if excludes else ""


def _best_choices(
    run: RunResults, rows: Sequence[ComparisonRow], labels: dict[tuple[str | None, ...], str]
) -> list[str]:
    """Return one sentence per best adaptation: the devices on which it is the best that always fits."""
    found = {contest.device: contest for contest in contests(run, rows)}
    best: dict[str, list[ComparisonRow]] = defaultdict(list)
    devices = sorted({row.device for row in rows if row.device is not None})
    for device in devices:
        fitting = [row for row in admissible(rows) if row.device == device]
        if fitting:
            top = max(fitting, key=lambda row: (row.accuracy_mean or 0.0, labels[adaptation_key(row)]))
            best[labels[adaptation_key(top)]].append(top)
    return [
        _best_sentence(label, chosen, len(devices), [found[str(row.device)] for row in chosen])
        for label, chosen in sorted(best.items())
    ]


def _best_sentence(label: str, chosen: list[ComparisonRow], num_devices: int, against: list[Contest]) -> str:
    cheapest = min(chosen, key=lambda row: row.latency_p50_ms or float("inf"))
    dearest = max(chosen, key=lambda row: row.latency_p50_ms or float("-inf"))
    ends = sorted({formatting.duration(cheapest.latency_p50_ms), formatting.duration(dearest.latency_p50_ms)})
    span = f"{formatting.duration(cheapest.latency_p50_ms)} ({cheapest.device})"
    if len(ends) > 1:
        span += f" to {formatting.duration(dearest.latency_p50_ms)} ({dearest.device})"
    names = ", ".join(str(row.device) for row in chosen)
    where = f"all {num_devices} devices" if len(chosen) == num_devices > 1 else names
    return (
        f"Highest mean accuracy among what fits every task: {label} on {where}, {_accuracies(chosen)}"
        f"{_leads(against)}; median time per task {span}, {joined(chosen, 'standing')}."
    )


def _accuracies(chosen: list[ComparisonRow]) -> str:
    """Return the mean accuracy with its interval, from the least to the most accurate device where they differ."""
    shown = [
        formatting.percent_interval(row.accuracy_mean, row.accuracy_high, row.accuracy_low)
        for row in sorted(chosen, key=lambda row: row.accuracy_mean or 0.0)
    ]
    return f"{shown[0]} %" if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]} %"


def _leads(against: list[Contest]) -> str:
    """Say by how much it leads the next, and on how many devices the lead's interval excludes zero."""
    leads = sorted(contest.lead_points for contest in against if contest.lead_points is not None)
    if not leads:
        return ""
    span = f"{leads[0]:+.1f}" if f"{leads[0]:.1f}" == f"{leads[-1]:.1f}" else f"{leads[0]:+.1f} to {leads[-1]:+.1f}"
    sure = sum(contest.lead_low_points is not None and contest.lead_low_points > 0 for contest in against)
    return f", {span} points ahead of the next (95 % interval above zero on {sure} of {_counted(len(leads), 'device')})"
