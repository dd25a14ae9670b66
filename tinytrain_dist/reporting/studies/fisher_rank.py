"""Analysis ``fisher_rank``: does Fisher information rank layers, and groups of channels, by what updating them gains?

Per task Spearman's rank correlation between a score of each layer and the accuracy gained by updating it alone; its
mean over tasks with a 95 % interval. Channel groups are the quarters of a layer by Fisher information.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from scipy.stats import spearmanr

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_alone import QUARTERS, LayerAlone, layer_alone
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.stored_parts import finite
from tinytrain_dist.reporting.studies.report import StudyReport, StudyTable
from tinytrain_dist.reporting.studies.samples import PerTask, difference, domain_table, facts, measured

_DELTAS = """
SELECT DISTINCT task_id, layer, delta FROM read_parquet(?) WHERE checkpoint = ?
"""
_GAINS = """
SELECT task_id, domain, method, avg(100 * (accuracy_after - accuracy_before) ORDER BY device) AS gain_points
FROM rows WHERE ok AND method LIKE 'layer_alone_%' GROUP BY ALL ORDER BY ALL
"""
MIN_ITEMS = 3
"""A rank correlation of two is always 1 or -1."""
Score = Callable[[LayerGraph, int, Sequence[float]], float]
"""Graph, layer and Delta of its channels -> score of the layer."""


def _full(graph: LayerGraph, layer: int, delta: Sequence[float]) -> float:
    """Return Eq. 3: potential per share of weights and of MACs."""
    weights = graph.layer(layer).weights / max(x.weights for x in graph.layers)
    macs = graph.layer(layer).macs / max(x.macs for x in graph.layers)
    return math.fsum(delta) / (weights * macs)


SCORES: Mapping[str, Score] = {
    "Fisher potential": lambda graph, layer, delta: math.fsum(delta),
    "Eq. 3: potential per memory and compute": _full,
    "number of weights": lambda graph, layer, delta: graph.layer(layer).weights,
    "position, later first": lambda graph, layer, delta: layer,
}
"""The score in question, and what a correlation with it has to beat."""


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What one task gained by updating one layer, or a quarter of it, alone."""

    what: LayerAlone
    gain_points: float


@dataclass(frozen=True)
class _Task:
    domain: str
    delta: Mapping[int, Sequence[float]]
    gains: tuple[Alone, ...]

    def of(self, *, quarters: bool) -> list[Alone]:
        """Return the gains of whole layers, or of quarters, where the layer was inspected."""
        return [g for g in self.gains if (g.what.quarter is not None) == quarters and g.what.layer in self.delta]


def fisher_rank(runs: Mapping[str, RunResults]) -> StudyReport:
    """Return the correlations of every run for layers and for channel groups, and the gain of each quarter."""
    tables: list[StudyTable] = []
    notes = [
        "tasks on which every update gained the same have no rank correlation and are left out of its mean",
        "gain: accuracy after updating the layer (or group) alone minus accuracy before, absolute points",
    ]
    for name, run in runs.items():
        graph, tasks = _graph(run), _tasks(run)
        domains = {task: found.domain for task, found in tasks.items()}
        layers = [(word, _by_layer(tasks, partial(score, graph))) for word, score in SCORES.items()]
        groups = [
            ("across all groups", _by_group(tasks, graph)),
            ("within a layer, mean over its layers", _within_layers(tasks, graph)),
        ]
        tables += [
            domain_table(f"{name}: score of a layer against its gain alone, Spearman per task", layers, domains,
                         unit="correlation", first="score"),
            domain_table(f"{name}: Fisher potential of a channel group against its gain alone, Spearman per task",
                         groups, domains, unit="correlation", first="ranked"),
            domain_table(f"{name}: gain of a quarter of a layer's channels, points", _quarters(tasks), domains,
                         unit="points", first="quarter"),
            _per_layer(name, tasks, graph),
        ]  # fmt: skip
        notes.append(f"{name}: {facts(run)}")
    return StudyReport(tables=tuple(tables), notes=tuple(notes))


def rank_correlation(scores: Sequence[float], gains: Sequence[float]) -> float | None:
    """Return Spearman's correlation, equal values sharing their rank; ``None`` where one side has no order."""
    if len(scores) < MIN_ITEMS or len(set(scores)) == 1 or len(set(gains)) == 1:
        return None
    return float(spearmanr(scores, gains).statistic)


def _graph(run: RunResults) -> LayerGraph:
    found = run.select("SELECT DISTINCT backbone, resolution, checkpoint FROM stored WHERE method LIKE 'layer_alone_%'")
    if len(found) != 1:
        raise StorageError(f"{run.location}: rank correlations need rows of layer_alone_<layer> of one network")
    return layer_graph(found[0]["backbone"], found[0]["resolution"])


def _tasks(run: RunResults) -> dict[str, _Task]:
    deltas = _deltas(run)
    gains: dict[tuple[str, str], list[Alone]] = defaultdict(list)
    for row in run.select(_GAINS):
        what = layer_alone(row["method"])
        if what is not None:
            gains[row["task_id"], row["domain"]].append(Alone(what=what, gain_points=row["gain_points"]))
    return {task: _Task(domain, deltas.get(task, {}), tuple(found)) for (task, domain), found in gains.items()}


def _deltas(run: RunResults) -> dict[str, Mapping[int, Sequence[float]]]:
    """Return task -> layer -> Delta of its channels, as the run stored them, where they are finite."""
    files = [str(path) for path in run.folder.files("fisher")]
    if not files:
        raise StorageError(f"{run.location}/fisher: no Fisher information is stored; add a quarter or tinytrain to it")
    (row,) = run.select("SELECT DISTINCT checkpoint FROM stored WHERE method LIKE 'layer_alone_%'")
    found: dict[str, dict[int, Sequence[float]]] = defaultdict(dict)
    for stored in run.select(_DELTAS, [files, row["checkpoint"]]):
        found[stored["task_id"]][stored["layer"]] = stored["delta"]
    return finite(found)


def _group_delta(graph: LayerGraph, task: _Task, what: LayerAlone) -> float:
    """Return the Fisher potential of a quarter: the sum of Delta over its channels."""
    delta = task.delta[what.layer]
    order = sorted(range(len(delta)), key=lambda channel: (-delta[channel], channel))
    (update,) = what.plan(graph, order=order).updates
    return math.fsum(delta[channel] for channel in update.channels or ())


def _by_layer(tasks: Mapping[str, _Task], score: Callable[[int, Sequence[float]], float]) -> PerTask:
    def correlation(task: _Task) -> float | None:
        alone = task.of(quarters=False)
        scores = [score(a.what.layer, task.delta[a.what.layer]) for a in alone]
        return rank_correlation(scores, [a.gain_points for a in alone])

    return _per_task(tasks, correlation)


def _by_group(tasks: Mapping[str, _Task], graph: LayerGraph) -> PerTask:
    def correlation(task: _Task) -> float | None:
        alone = task.of(quarters=True)
        return rank_correlation([_group_delta(graph, task, a.what) for a in alone], [a.gain_points for a in alone])

    return _per_task(tasks, correlation)


def _within_layers(tasks: Mapping[str, _Task], graph: LayerGraph) -> PerTask:
    def correlation(task: _Task) -> float | None:
        layers: dict[int, list[Alone]] = defaultdict(list)
        for alone in task.of(quarters=True):
            layers[alone.what.layer].append(alone)
        each = [
            rank_correlation([_group_delta(graph, task, a.what) for a in found], [a.gain_points for a in found])
            for found in layers.values()
        ]
        known = [value for value in each if value is not None]
        return statistics.fmean(known) if known else None

    return _per_task(tasks, correlation)


def _per_task(tasks: Mapping[str, _Task], value_of: Callable[[_Task], float | None]) -> PerTask:
    found = {task: value_of(what) for task, what in tasks.items()}
    return {task: value for task, value in found.items() if value is not None}


def _quarters(tasks: Mapping[str, _Task]) -> list[tuple[str, PerTask]]:
    """Return the mean gain of each quarter over a task's layers, and that of the top over the bottom one."""
    found: dict[str, PerTask] = {}
    for quarter in QUARTERS:
        gains = {
            task: [a.gain_points for a in what.of(quarters=True) if a.what.quarter == quarter]
            for task, what in tasks.items()
        }
        found[quarter] = {task: statistics.fmean(values) for task, values in gains.items() if values}
    return [*found.items(), ("top minus bottom, paired", difference(found[QUARTERS[0]], found[QUARTERS[-1]]))]


def _per_layer(name: str, tasks: Mapping[str, _Task], graph: LayerGraph) -> StudyTable:
    gains: dict[int, list[float]] = defaultdict(list)
    shares: dict[int, list[float]] = defaultdict(list)
    for task in tasks.values():
        alone = task.of(quarters=False)
        total = math.fsum(math.fsum(task.delta[a.what.layer]) for a in alone)
        for a in alone:
            gains[a.what.layer].append(a.gain_points)
            shares[a.what.layer].append(100 * math.fsum(task.delta[a.what.layer]) / total if total else 0.0)
    rows: list[tuple[Any, ...]] = [
        (str(layer), graph.layer(layer).role, graph.layer(layer).weights, measured(shares[layer], "per cent"),
         measured(gains[layer], "points"))
        for layer in sorted(gains)
    ]  # fmt: skip
    columns = ("layer", "role", "weights", "share of the potential, per cent", "gain alone, points")
    return StudyTable(title=f"{name}: layer by layer", columns=columns, rows=tuple(rows))
