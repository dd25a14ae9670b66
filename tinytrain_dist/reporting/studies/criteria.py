"""Analysis ``criteria``: what choosing by the full score is worth against its ablations, at an equal budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.studies.report import Cell, StudyReport, StudyTable
from tinytrain_dist.reporting.studies.samples import (
    PerTask,
    Samples,
    difference,
    domain_table,
    facts,
    failures,
    measured,
    samples_of,
)
from tinytrain_dist.reporting.views import BASELINE

METHOD = "tinytrain"
_SPENT = f"""
SELECT avg(updated_weights ORDER BY task_id) AS weights, avg(paper_memory_bytes ORDER BY task_id) AS bytes,
    avg(input_grad_macs + weight_grad_macs ORDER BY task_id) AS macs,
    count(*) FILTER (WHERE plan_status = 'infeasible') AS infeasible
FROM rows WHERE method = '{METHOD}' AND ok
"""
_BUDGETS = f"SELECT DISTINCT budget_memory_bytes, budget_backward_macs FROM rows WHERE method = '{METHOD}' AND ok"


def criteria(runs: Mapping[str, RunResults]) -> StudyReport:
    """Return one line per run, each compared with the first on the tasks both have."""
    found = {name: samples_of(run, by_device=()) for name, run in runs.items()}
    reference = next(iter(runs))
    accuracies = {name: _accuracy(name, samples, METHOD) for name, samples in found.items()}
    gaps = {name: difference(values, accuracies[reference]) for name, values in accuracies.items() if name != reference}
    rows = []
    for name, run in runs.items():
        baseline = found[name].line(BASELINE)
        gain = {} if baseline is None else difference(accuracies[name], baseline.accuracy)
        (spent,) = run.select(_SPENT)
        rows.append(_row(name, accuracies[name], gain, gaps.get(name), spent))
    domains = {task: domain for samples in found.values() for task, domain in samples.domains.items()}
    columns = ("criterion", "tasks", "accuracy %", "gain over none, points", f"minus {reference}, points",
               "updated weights", "backward MACs", "memory, bytes", "infeasible")  # fmt: skip
    title = f"{METHOD} by criterion, means over tasks"
    by_domain = f"Minus {reference} by domain, points, paired"
    notes = [f"{name}: {facts(run)}" for name, run in list(runs.items())[:1]] + [_budget_note(runs)]
    notes += [note for name, samples in found.items() for note in failures(name, samples)]
    return StudyReport(
        tables=(
            StudyTable(title=title, columns=columns, rows=tuple(rows)),
            domain_table(by_domain, list(gaps.items()), domains, unit="points", first="criterion"),
        ),
        notes=tuple(notes),
    )


def _accuracy(name: str, samples: Samples, method: str) -> PerTask:
    line = samples.line(method)
    if line is None:
        raise StorageError(f"run {name!r} holds no row of {method}: there is nothing to compare")
    return line.accuracy


def _row(
    name: str, accuracy: PerTask, gain: PerTask, gap: PerTask | None, spent: Mapping[str, Any]
) -> tuple[Cell, ...]:
    return (
        name,
        len(accuracy),
        measured(accuracy.values(), "per cent"),
        measured(gain.values(), "points"),
        "reference" if gap is None else measured(gap.values(), "points"),
        spent["weights"],
        spent["macs"],
        spent["bytes"],
        spent["infeasible"],
    )


def _budget_note(runs: Mapping[str, RunResults]) -> str:
    pairs = {tuple(row.values()) for run in runs.values() for row in run.select(_BUDGETS)}
    words = [f"{memory:,} bytes and {macs:,} backward MACs" for memory, macs in sorted(pairs)]
    return f"budget of every run: {words[0]}" if len(words) == 1 else f"budgets DIFFER: {'; '.join(words)}"
