"""What would have to change for the runner-up to win, per device: fewer points, another limit, more tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

from tinytrain_dist.reporting.admissible import admissible, why_not
from tinytrain_dist.reporting.comparison import ADAPTATION, ComparisonRow
from tinytrain_dist.reporting.intervals import CONFIDENCE, t_interval
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.tighter_limits import limit_words, tighter_limits

MAX_TASKS = 10**6


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Winner (highest mean accuracy of what certainly fits) and runner-up on one device.

    ``lead_points`` is paired on the tasks both finished. ``tasks_to_decide``: about how many tasks would make a lead
    of this size distinguishable from zero; None where it is already, or there is none.
    """

    device: str
    winner: str | None
    runner_up: str | None
    lead_points: float | None
    lead_low_points: float | None
    lead_high_points: float | None
    num_pairs: int
    tasks_to_decide: int | None
    sentence: str


def contests(run: RunResults, rows: Sequence[ComparisonRow]) -> list[Contest]:
    """Return the contest on every device; ``rows`` are its lines by device."""
    labels = adaptation_labels(rows)
    devices = sorted({str(row.device) for row in rows if row.device is not None})
    return [_contest(run, [row for row in rows if row.device == device], labels) for device in devices]


def _contest(run: RunResults, rows: list[ComparisonRow], labels: dict[Any, str]) -> Contest:
    device = str(rows[0].device)
    known = [row for row in rows if row.accuracy_mean is not None]
    ranked = _ranked(rows, labels)
    if not ranked:
        text = f"{device}: nothing certainly fits every task." + _locked_out(known, None, labels)
        return Contest(
            device=device, winner=None, runner_up=None, lead_points=None, lead_low_points=None,
            lead_high_points=None, num_pairs=0, tasks_to_decide=None, sentence=text,
        )  # fmt: skip
    winner, second = ranked[0], ranked[1] if len(ranked) > 1 else None
    name = labels[adaptation_key(winner)]
    if second is None:
        text = f"{device}: {name} is all that fits every task." + _locked_out(known, winner, labels)
        return Contest(
            device=device, winner=name, runner_up=None, lead_points=None, lead_low_points=None,
            lead_high_points=None, num_pairs=0, tasks_to_decide=None, sentence=text,
        )  # fmt: skip
    mean, deviation, num = _lead(run, winner, second)
    estimate = t_interval(mean, deviation, num)
    needed = _tasks_to_decide(mean, deviation, num)
    other = labels[adaptation_key(second)]
    sentence = _sentence(device, name, other, estimate, needed) + _cheaper(other, rows, winner, second, labels)
    sentence += _locked_out(known, winner, labels)
    return Contest(
        device=device, winner=name, runner_up=other, lead_points=mean,
        lead_low_points=estimate.low if estimate else None, lead_high_points=estimate.high if estimate else None,
        num_pairs=num, tasks_to_decide=needed, sentence=sentence,
    )  # fmt: skip


def _ranked(rows: Sequence[ComparisonRow], labels: dict[Any, str]) -> list[ComparisonRow]:
    """Return what certainly fits every task, the most accurate first."""
    return sorted(
        admissible(rows),
        key=lambda row: (-(row.accuracy_mean or 0.0), row.latency_p50_ms or math.inf, labels[adaptation_key(row)]),
    )


def _lead(run: RunResults, first: ComparisonRow, second: ComparisonRow) -> tuple[float | None, float | None, int]:
    """Return mean, deviation and number of the paired differences in points of the tasks both lines finished."""
    same = " AND ".join(f"{name} IS NOT DISTINCT FROM ?" for name in ("device", *ADAPTATION))
    values = [[row.device, *(getattr(row, name) for name in ADAPTATION)] for row in (first, second)]
    found = run.select(
        f"""
        WITH gaps AS (
            SELECT 100 * (a.accuracy - b.accuracy) AS gap
            FROM (SELECT task_id, accuracy_after AS accuracy FROM rows WHERE ok AND {same}) a
            JOIN (SELECT task_id, accuracy_after AS accuracy FROM rows WHERE ok AND {same}) b USING (task_id)
        )
        SELECT avg(gap ORDER BY gap) AS mean, stddev_samp(gap ORDER BY gap) AS deviation, count(gap) AS num FROM gaps
        """,
        [*values[0], *values[1]],
    )[0]
    return found["mean"], found["deviation"], found["num"]


def _tasks_to_decide(mean: float | None, deviation: float | None, num: int) -> int | None:
    """Return the smallest n with ``t(n - 1) * deviation / sqrt(n) <= |mean|``; None where this many tasks decide."""
    if not mean or not deviation or num < 2:
        return None

    def decides(tasks: int) -> bool:
        return float(stdtrit(tasks - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(tasks) <= abs(mean)

    if decides(num):
        return None
    low, high = num, 2 * num  # the half width only falls with more tasks: double, then halve the bracket
    while not decides(high):
        low, high = high, 2 * high
        if low > MAX_TASKS:
            return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _sentence(device: str, name: str, other: str, lead: Any, needed: int | None) -> str:
    if lead is None:
        return f"{device}: {name} leads; {other} is second, on no common task."
    span = "" if lead.low is None else f" (95 % interval {lead.low:+.1f} to {lead.high:+.1f}, {lead.num} tasks)"
    text = f"{device}: {name} leads {other} by {lead.mean:.1f} points{span}."
    if lead.mean <= 0:
        text += " On the tasks they share the runner-up is no worse."
    elif needed:
        many = f"about {needed:,}" if needed <= MAX_TASKS else "more than a million"
        text += f" That is not distinguishable from zero; a lead of this size would be with {many} tasks."
    else:
        text += f" {other} wins if it gains more than {max(lead.mean, lead.high or 0.0):.1f} points."
    return text


def _cheaper(
    other: str, rows: Sequence[ComparisonRow], winner: ComparisonRow, second: ComparisonRow, labels: dict[Any, str]
) -> str:
    """Say under which limits the runner-up wins because the winner no longer certainly fits every task."""
    found = tighter_limits(rows, winner, second, lambda left: next(iter(_ranked(left, labels)), None))
    ranges = " or ".join(f"a limit of {limit.resource} {limit_words(limit)}" for limit in found)
    return f" {other} also wins under {ranges}." if found else ""


def _locked_out(rows: list[ComparisonRow], winner: ComparisonRow | None, labels: dict[Any, str]) -> str:
    """Name the more accurate adaptation that only fails to fit, and what it misses."""
    floor = (winner.accuracy_mean or 0.0) if winner else -1.0
    better = [row for row in rows if why_not(row, rows) and (row.accuracy_mean or 0.0) > floor]
    if not better:
        return ""
    best = max(better, key=lambda row: (row.accuracy_mean or 0.0, labels[adaptation_key(row)]))
    gap = "" if winner is None else f", {100 * ((best.accuracy_mean or 0.0) - floor):.1f} points above,"
    lacking = best.num_failed or (best.fits_share or 0.0) + (best.uncertain_share or 0.0) > 1 - 1e-12
    doubt = "does not certainly fit" if lacking or best.uncertain_share else "does not fit"
    return f" {labels[adaptation_key(best)]}{gap} {doubt} ({why_not(best, rows)})."
