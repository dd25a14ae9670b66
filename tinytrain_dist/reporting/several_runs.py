"""Several runs side by side (other initial weights, other criteria): the same tasks, paired.

Every line gets the run it is of, and lines of later runs the difference to the same adaptation of the first one, task
by task. Tasks are the same where their id is (domain, split, sampler, seed, index) and the domain held the same images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinytrain_dist.reporting import comparison_query as query
from tinytrain_dist.reporting.comparison import (
    NO_LIMITS,
    ComparisonRow,
    comparison_table,
    display_order,
    method_rank,
    place_of,
    place_order,
)
from tinytrain_dist.reporting.intervals import Estimate, IntervalKind, bootstrap_interval, t_interval, t_test
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.multiplicity import holm
from tinytrain_dist.reporting.places import PLACES, places_of
from tinytrain_dist.reporting.runs import RunResults

Line = tuple[Any, ...]
Accuracies = dict[Line, dict[str, float]]
"""Place and adaptation -> task -> accuracy (share)."""


@dataclass(frozen=True, kw_only=True)
class SeveralRuns:
    """Lines of all runs in display order, and what has to be said about pairing them."""

    rows: list[ComparisonRow]
    notes: list[str]


def compare_runs(
    runs: Sequence[RunResults],
    *,
    by: str = "device",
    interval: IntervalKind = "t",
    limits: Limits = NO_LIMITS,
) -> SeveralRuns:
    """Return the lines of all ``runs``, later ones with their paired difference to the first."""
    names = run_names(runs)
    tables, accuracies = [], []
    for run in runs:
        tables.append(comparison_table(run, by=by, interval=interval, limits=limits))
        accuracies.append(_accuracies(run, places_of(by)))
    notes: list[str] = []
    rows = [replace(row, run=names[0]) for row in tables[0]]
    for name, run, table, found in zip(names[1:], runs[1:], tables[1:], accuracies[1:], strict=True):
        other = _other_domains(runs[0], run)
        if other:
            notes.append(f"NOTE: {name}: {', '.join(other)} held other images than in {names[0]}; not paired.")
        later = _versus(table, found, tables[0], accuracies[0], leaving_out=other, kind=interval)
        rows += [replace(row, run=name, versus_run=names[0]) for row in later]
        if not any(row.num_versus_pairs for row in later):
            notes.append(f"NOTE: {name} and {names[0]} have no task in common; nothing can be paired.")
    return SeveralRuns(rows=sorted(rows, key=lambda row: _display_order(row, names)), notes=notes)


def _display_order(row: ComparisonRow, names: list[str]) -> tuple[Any, ...]:
    """Return the sort key of a line: lines of one method stand together, that of the first run on top."""
    place = names.index(row.run or names[0])
    return (place_order(row), row.backbone or "", method_rank(row.method), place, display_order(row))


def run_names(runs: Sequence[RunResults]) -> list[str]:
    """Return a name per run: its id, or its place where two runs have the same id."""
    ids = [run.run_id for run in runs]
    return [name if ids.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(ids, start=1)]


def _accuracies(run: RunResults, places: tuple[str, ...]) -> Accuracies:
    """Read ``planner_tasks``, which ``comparison_table`` has just made."""
    found: Accuracies = defaultdict(dict)
    group = query.group_of(places)
    cursor = run.connection.execute(f"SELECT {', '.join(group)}, task_id, accuracy FROM planner_tasks "
                                    "WHERE accuracy IS NOT NULL")  # fmt: skip
    for *line, task, accuracy in cursor.fetchall():
        values = dict(zip(group, line, strict=True))
        found[_line_key(values)][task] = accuracy
    return found


def _line_key(values: dict[str, Any]) -> Line:
    return (*(values.get(name) for name in PLACES), *(values[name] for name in query.ADAPTATION))


def _key(row: ComparisonRow) -> Line:
    return (*place_of(row), *(getattr(row, name) for name in query.ADAPTATION))


def _other_domains(first: RunResults, other: RunResults) -> list[str]:
    hashes = [run.record.get("identity", {}).get("domain_hashes", {}) for run in (first, other)]
    return sorted(name for name in set(hashes[0]) & set(hashes[1]) if hashes[0][name] != hashes[1][name])


def _versus(
    rows: list[ComparisonRow], found: Accuracies, firsts: list[ComparisonRow], first_found: Accuracies,
    *, leaving_out: list[str], kind: IntervalKind,
) -> list[ComparisonRow]:  # fmt: skip
    paired, tests = [], []
    for row in rows:
        partner = _partner(row, rows, firsts)
        ours, theirs = found.get(_key(row), {}), first_found.get(_key(partner), {}) if partner else {}
        tasks = sorted(task for task in ours.keys() & theirs.keys() if task.split("/")[0] not in leaving_out)
        gaps = np.sort(np.array([100 * (ours[task] - theirs[task]) for task in tasks]))
        estimate, p = _paired(gaps, kind)
        paired.append(_with(row, estimate, len(tasks)))
        tests.append(p)
    places: dict[Line, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        places[place_of(row)].append(number)
    for numbers in places.values():
        for number, p in zip(numbers, holm([tests[n] for n in numbers]), strict=True):
            paired[number] = replace(paired[number], versus_p_holm=p)
    return paired


def _partner(row: ComparisonRow, rows: list[ComparisonRow], firsts: list[ComparisonRow]) -> ComparisonRow | None:
    """Return the line of the first run with this method: the same variant, else the only one there is in both."""
    there = [r for r in firsts if r.method == row.method and place_of(r) == place_of(row)]
    here = [r for r in rows if r.method == row.method and place_of(r) == place_of(row)]
    same = [r for r in there if _words(r) == _words(row)] or [r for r in there if r.variant == row.variant]
    if len(same) == 1:
        return same[0]
    return there[0] if len(there) == 1 and len(here) == 1 else None


def _words(row: ComparisonRow) -> tuple[str | None, ...]:
    return (row.backbone, row.initialization, row.variant)


def _paired(gaps: np.ndarray[Any, np.dtype[np.float64]], kind: IntervalKind) -> tuple[Estimate | None, float | None]:
    if not len(gaps):
        return None, None
    mean = float(gaps.mean())
    deviation = float(gaps.std(ddof=1)) if len(gaps) > 1 else None
    estimate = bootstrap_interval([gaps.tolist()], seed="versus") if kind == "bootstrap" else None
    return estimate or t_interval(mean, deviation, len(gaps)), t_test(mean, deviation, len(gaps))


def _with(row: ComparisonRow, estimate: Estimate | None, num: int) -> ComparisonRow:
    if estimate is None:
        return row
    return replace(
        row, num_versus_pairs=num, versus_points=estimate.mean, versus_low_points=estimate.low,
        versus_high_points=estimate.high,
    )  # fmt: skip
