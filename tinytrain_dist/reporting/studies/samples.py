"""Values per task out of a run's rows, and their means with intervals. The task is the unit everywhere."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tinytrain_dist.reporting.cells import INAPPLICABLE
from tinytrain_dist.reporting.comparison import method_rank
from tinytrain_dist.reporting.intervals import t_interval
from tinytrain_dist.reporting.notices import inapplicable_notices
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.studies.report import Cell, Measured, StudyTable, Unit

ALL = "all"
"""Column of the mean over the tasks of every domain."""
PerTask = Mapping[str, float]
"""Task id -> value."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table: a method, on one device where its plan depends on the device.

    Attributes
    ----------
    accuracy
        Task -> per cent of the query images, mean over the devices of the line; finished tasks only.
    num_inapplicable, inapplicable
        Rows of a method that has nothing to update on this network, and why: they are no accuracy of it.
    """

    label: str
    method: str
    accuracy: PerTask
    num_failed: int
    num_inapplicable: int
    inapplicable: str | None


@dataclass(frozen=True)
class Samples:
    """The accuracies of one run."""

    lines: tuple[Line, ...]
    domains: Mapping[str, str] = field(repr=False)
    """Task -> domain."""

    def line(self, label: str) -> Line | None:
        """Return the line called ``label``."""
        return next((line for line in self.lines if line.label == label), None)

    def of_method(self, method: str) -> tuple[Line, ...]:
        """Return the lines of a method: one, or one per device."""
        return tuple(line for line in self.lines if line.method == method)


def device_dependent(runs: Iterable[RunResults]) -> frozenset[str]:
    """Return the methods that came out differently on two devices of one task in any of the runs."""
    sql = (
        "SELECT method FROM (SELECT method, count(DISTINCT accuracy_after) AS n FROM rows WHERE ok"
        " GROUP BY task_id, checkpoint, method, variant) WHERE n > 1 GROUP BY method"
    )
    return frozenset(str(row["method"]) for run in runs for row in run.select(sql))


def samples_of(run: RunResults, *, by_device: Collection[str] | None = None) -> Samples:
    """Return the accuracies per line of a run; methods in ``by_device`` have one per device (none given: as found)."""
    apart = device_dependent([run]) if by_device is None else by_device
    sql = (
        "SELECT task_id, domain, method, device, ok, inapplicable, accuracy_after FROM rows"
        " ORDER BY task_id, method, device"
    )
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    failed: dict[tuple[str, str], int] = defaultdict(int)
    inapplicable: dict[tuple[str, str], list[str]] = defaultdict(list)
    domains: dict[str, str] = {}
    for row in run.select(sql):
        domains[row["task_id"]] = row["domain"]
        key = row["method"], str(row["device"]) if row["method"] in apart else ""
        if row["ok"]:
            values[key][row["task_id"]].append(100 * row["accuracy_after"])
        elif row["inapplicable"] is not None:
            inapplicable[key].append(row["inapplicable"])
        else:
            failed[key] += 1
    order = sorted({*values, *failed, *inapplicable}, key=lambda key: (method_rank(key[0]), key[1]))
    lines = (
        Line(
            label=_label(method, device, applies=not inapplicable[method, device] or bool(values[method, device])),
            method=method,
            accuracy={task: statistics.fmean(found) for task, found in values[method, device].items()},
            num_failed=failed[method, device],
            num_inapplicable=len(inapplicable[method, device]),
            inapplicable=min(inapplicable[method, device], default=None),
        )
        for method, device in order
    )
    return Samples(tuple(lines), domains)


def _label(method: str, device: str, *, applies: bool) -> str:
    where = f"{method}, {device}" if device else method
    return where if applies else f"{where} ({INAPPLICABLE})"


def difference(one: PerTask, other: PerTask) -> dict[str, float]:
    """Return ``one - other`` on the tasks both have: pairs."""
    return {task: value - other[task] for task, value in one.items() if task in other}


def measured(values: Iterable[float], unit: Unit) -> Measured:
    """Return the mean of one value per task with its 95 % t interval."""
    found = list(values)
    deviation = statistics.stdev(found) if len(found) > 1 else None
    mean = statistics.fmean(found) if found else None
    return Measured(unit=unit, estimate=t_interval(mean, deviation, len(found)))


def by_domain(values: PerTask, domains: Mapping[str, str], *, columns: Sequence[str], unit: Unit) -> list[Measured]:
    """Return the mean in each domain of ``columns``, and over all tasks for ``ALL``."""
    return [
        measured((value for task, value in values.items() if column in (ALL, domains[task])), unit)
        for column in columns
    ]


def domain_columns(domains: Mapping[str, str]) -> tuple[str, ...]:
    """Return the domains in alphabetical order, then ``ALL``."""
    return (*sorted(set(domains.values())), ALL)


def domain_table(
    title: str, lines: Iterable[tuple[str, PerTask]], domains: Mapping[str, str], *, unit: Unit, first: str = "method"
) -> StudyTable:
    """Return a table of lines (label, value per task) and domains."""
    columns = domain_columns(domains)
    rows: list[tuple[Cell, ...]] = [
        (label, len(values), *by_domain(values, domains, columns=columns, unit=unit))
        for label, values in lines
    ]  # fmt: skip
    return StudyTable(title=title, columns=(first, "tasks", *columns), rows=tuple(rows))


def facts(run: RunResults) -> str:
    """Return what a run was made with, in one line."""
    (network,) = run.select(
        "SELECT string_agg(DISTINCT backbone || ', ' || initialization || ' (' || checkpoint[:8] || '), '"
        " || resolution || ' px, mode ' || mode, '; ') AS words FROM stored"
    )
    identity = run.record.get("identity", {})
    tuning, episodes = identity.get("finetune", {}), identity.get("episodes", {})
    words = [str(network["words"])]
    if tuning:
        words.append(f"{tuning['iterations']} iterations of {tuning['optimizer']} at {tuning['learning_rate']:g}")
    if episodes:
        words.append(", ".join(f"{key} {value}" for key, value in episodes.items()))
    return "; ".join(words)


def failures(name: str, samples: Samples) -> list[str]:
    """Return notes on rows without a result, failed or not applicable: they are counted, never averaged in."""
    failed = [f"{line.label}: {line.num_failed}" for line in samples.lines if line.num_failed]
    told = inapplicable_notices((line.method, line.inapplicable, line.num_inapplicable) for line in samples.lines)
    notes = [f"{name}: rows that failed and are in no mean: {', '.join(failed)}"] if failed else []
    return notes + [f"{name}: {text.removeprefix('NOTE: ')}" for text in told]
