"""Analysis ``initialization``: every method from every initialization, so that like is compared with like."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.studies.main_table import gains, versus
from tinytrain_dist.reporting.studies.report import Cell, Measured, StudyReport, StudyTable
from tinytrain_dist.reporting.studies.samples import (
    PerTask,
    Samples,
    device_dependent,
    difference,
    facts,
    failures,
    measured,
    samples_of,
)


def initialization(runs: Mapping[str, RunResults]) -> StudyReport:
    """Return the table method x initialization, what each start adds to the one before it, and gains within each."""
    apart = device_dependent(runs.values())
    found = {name: samples_of(run, by_device=apart) for name, run in runs.items()}
    labels = tuple(dict.fromkeys(line.label for samples in found.values() for line in samples.lines))
    tables = [_accuracies(labels, found), *_steps(labels, found)]
    for name, samples in found.items():
        tables += [*gains(name, samples), *versus(name, samples)]
    notes = [f"{name}: {facts(run)}" for name, run in runs.items()]
    notes += [note for name, samples in found.items() for note in failures(name, samples)]
    return StudyReport(tables=tuple(tables), notes=tuple(notes))


def _accuracies(labels: tuple[str, ...], found: Mapping[str, Samples]) -> StudyTable:
    rows: list[tuple[Cell, ...]] = [
        (label, *(measured(_accuracy(samples, label).values(), "per cent") for samples in found.values()))
        for label in labels
    ]
    title = "Accuracy by initialization, per cent of the query images, all domains"
    return StudyTable(title=title, columns=("method", *found), rows=tuple(rows))


def _steps(labels: tuple[str, ...], found: Mapping[str, Samples]) -> list[StudyTable]:
    """Return what each initialization adds to the one before it, paired on the same tasks."""
    steps = list(pairwise(found))
    if not steps:
        return []
    rows: list[tuple[Cell, ...]] = [
        (label, *(_step(found[one], found[other], label) for one, other in steps)) for label in labels
    ]
    columns = ("method", *(f"{other} minus {one}" for one, other in steps))
    return [StudyTable(title="What an initialization adds, points, paired", columns=columns, rows=tuple(rows))]


def _step(one: Samples, other: Samples, label: str) -> Measured:
    return measured(difference(_accuracy(other, label), _accuracy(one, label)).values(), "points")


def _accuracy(samples: Samples, label: str) -> PerTask:
    line = samples.line(label)
    return {} if line is None else line.accuracy
