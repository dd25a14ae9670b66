"""Analysis ``main_table``: method x domain as in the paper's main table, every method from the same initialization."""

from __future__ import annotations

from collections.abc import Mapping

from tinytrain_dist.reporting import cells, formatting
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.studies.report import StudyReport, StudyTable
from tinytrain_dist.reporting.studies.samples import Samples, difference, domain_table, facts, failures, samples_of
from tinytrain_dist.reporting.views import BASELINE

SUBJECT = "tinytrain"


def main_table(runs: Mapping[str, RunResults]) -> StudyReport:
    """Return, for each run, accuracies, gains over ``none``, ``tinytrain`` against each method, and what fits where."""
    tables: list[StudyTable] = []
    notes: list[str] = []
    for name, run in runs.items():
        samples = samples_of(run)
        tables += [_accuracies(name, samples), *gains(name, samples), *versus(name, samples), _fits(name, run)]
        notes += [f"{name}: {facts(run)}", *failures(name, samples)]
    return StudyReport(tables=tuple(tables), notes=tuple(notes))


def _accuracies(name: str, samples: Samples) -> StudyTable:
    lines = [(line.label, line.accuracy) for line in samples.lines]
    return domain_table(f"{name}: accuracy, per cent of the query images", lines, samples.domains, unit="per cent")


def gains(name: str, samples: Samples) -> list[StudyTable]:
    """Return the table of paired gains over ``none``; nothing without that method."""
    baseline = samples.line(BASELINE)
    if baseline is None:
        return []
    others = [line for line in samples.lines if line is not baseline]
    lines = [(line.label, difference(line.accuracy, baseline.accuracy)) for line in others]
    return [domain_table(f"{name}: gain over none, points, paired", lines, samples.domains, unit="points")]


def versus(name: str, samples: Samples) -> list[StudyTable]:
    """Return, for each line of ``tinytrain``, its paired difference to every other method."""
    tables = []
    for subject in samples.of_method(SUBJECT):
        others = [line for line in samples.lines if line.method != SUBJECT]
        lines = [(line.label, difference(subject.accuracy, line.accuracy)) for line in others]
        title = f"{name}: {subject.label} minus each method, points, paired"
        tables.append(domain_table(title, lines, samples.domains, unit="points", first="minus"))
    return tables


def _fit(row: ComparisonRow) -> str:
    return cells.INAPPLICABLE if row.is_inapplicable else formatting.percent(row.fits_share, digits=0)


def _fits(name: str, run: RunResults) -> StudyTable:
    """Return both means: over all tasks, and where the plan fits the device (costs by ``tinytrain compare``)."""
    rows = [
        (
            row.device, row.method, _fit(row), row.num_infeasible,
            formatting.percent_interval(row.accuracy_mean, row.accuracy_high),
            formatting.percent_interval(row.accuracy_where_fits_mean, row.accuracy_where_fits_high),
            row.num_tasks_where_fits,
        )
        for row in comparison_table(run, by="device") if row.device is not None
    ]  # fmt: skip
    columns = ("device", "method", "fits %", "infeasible", "accuracy %", "where it fits %", "tasks where it fits")
    return StudyTable(title=f"{name}: accuracy on each device", columns=columns, rows=tuple(rows))
