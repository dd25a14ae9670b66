"""Which stored row answers which cell on a device that was not run: the plan must be the one it would choose.

A method without a budget updates the same on every device. TinyTrain's plan S, chosen under budget b, is also the
plan under any budget b' <= b that still holds S (counted alike): every layer S took still fits, every layer it left
out did not fit even then. Where no stored budget settles it, Algorithm 1 runs again on the stored Fisher information;
the cell is answered where the plan it names was tuned for that task on any device, and needs tuning otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.costs.fit import device_budget, fixed_bytes
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.reporting.repricing import Ints, Pricer, Shape
from tinytrain_dist.reporting.reselection import Reselection
from tinytrain_dist.reporting.runs import RunResults

BATCH_TASKS = 500
_EXPLICIT = "explicit"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device to ask about: a profile, the name its rows get, and the run's device it stands for where it is one."""

    profile: DeviceProfile
    label: str
    device: str


@dataclass(kw_only=True)
class Cells:
    """The answered cells, column by column: stored row, target, shape of the plan, and whether nothing was admitted.

    ``needs_tuning``: (target, method, variant) -> tasks whose plan was never tuned; ``untold``: those of them for which
    stored data cannot even tell the plan.
    """

    rows: list[Ints] = field(default_factory=list)
    targets: list[Ints] = field(default_factory=list)
    shapes: list[Ints] = field(default_factory=list)
    infeasible: list[NDArray[np.bool_]] = field(default_factory=list)
    needs_tuning: dict[tuple[str, str, str], int] = field(default_factory=dict)
    untold: int = 0

    def add(self, rows: Ints, target: int, shapes: Ints, *, infeasible: bool = False) -> None:
        """Add cells of one target."""
        self.rows.append(rows)
        self.targets.append(np.full(len(rows), target, np.int64))
        self.shapes.append(shapes)
        self.infeasible.append(np.full(len(rows), infeasible))


class StoredCells:
    """The rows of a run in a form that answers what-if questions; numbered from 0 in ``wi_rows``."""

    def __init__(self, run: RunResults, pricer: Pricer) -> None:
        self._run, self._pricer = run, pricer
        self._plan_bytes_of: dict[str, Ints] = {}
        _NEXT[0] += 1
        self.schema = f"what_if_{_NEXT[0]}"
        """Schema of the run's database that holds this question's tables."""
        run.connection.execute(f"CREATE SCHEMA {self.schema}; {_NUMBERED.format(schema=self.schema)}")
        run.connection.execute(f"CREATE OR REPLACE TEMP VIEW wi_rows AS FROM {self.schema}.wi_rows")
        self.shapes, self._shape_of = self._read_shapes()
        columns = run.connection.execute(_KEYS).fetchnumpy()
        self._fixed = np.ma.getdata(columns["row"]).astype(np.int64)
        budget = run.connection.execute(_BUDGETED).fetchnumpy()
        self._budget = {name: np.ma.getdata(values) for name, values in budget.items()}
        graphs = {(shape.backbone, shape.resolution) for shape in self.shapes}
        self._graph: LayerGraph | None = layer_graph(*next(iter(graphs))) if len(graphs) == 1 else None
        self._reselection = None if self._graph is None else Reselection(run, self._graph)

    def answer(self, targets: list[Target]) -> Cells:
        """Return the cells of every target."""
        cells = Cells()
        for place, target in enumerate(targets):
            cells.add(self._fixed, place, self._shape_of[self._fixed])
            if len(self._budget["row"]):
                self._answer_budgeted(cells, place, target)
        return cells

    def shapes_of(self, rows: Ints) -> Ints:
        """Return the shape of every stored row, -1 where it has no price."""
        return self._shape_of[rows]

    def _read_shapes(self) -> tuple[list[Shape], Ints]:
        found = self._run.connection.execute(_SHAPES).fetchall()
        shapes = [
            Shape(backbone=r[0], resolution=r[1], method=r[2], plan_hash=r[3], inspects=r[4], way=r[5],
                  support_size=r[6], query_size=r[7], batch=r[8])
            for r in found
        ]  # fmt: skip
        numbers = self._run.connection.execute(_SHAPE_OF).fetchnumpy()["shape"]
        return shapes, np.asarray(numbers, np.int64)

    def _answer_budgeted(self, cells: Cells, place: int, target: Target) -> None:
        rows = self._budget
        settings = self._reselection.settings if self._reselection else None
        keys = np.unique(rows["key"])
        settled = np.zeros(0, np.int64)
        if self._graph is not None and settings is not None:
            budget = device_budget(self._graph, target.profile, memory_bytes=settings.memory_bytes,
                                   compute_share=settings.compute_share)  # fmt: skip
            ratio = settings.ratio_on(target.device)
            counter = _EXPLICIT if settings.memory_bytes is not None else target.profile.fit_counter
            counters = _EXPLICIT if settings.memory_bytes is not None else rows["counter"]
            ratios = {device: settings.ratio_on(device) for device in np.unique(rows["device"])}
            alike = (rows["macs"] == budget.backward_macs) & (rows["memory"] >= budget.memory_bytes)
            alike &= counters == counter
            if set(ratios.values()) != {ratio}:
                alike &= np.array([ratios[device] == ratio for device in rows["device"]], bool)
            candidates = np.flatnonzero(alike)  # sorted by key, then memory: the first of a key has the tightest budget
            _, first = np.unique(rows["key"][candidates], return_index=True)
            chosen = candidates[first]
            same = rows["memory"][chosen] == budget.memory_bytes
            if ratio != "auto":
                same |= rows["infeasible"][chosen]
                plan_bytes = self._plan_bytes(target.profile)[self._shape_of[rows["row"][chosen]]]
                same |= plan_bytes <= budget.memory_bytes
            settled = chosen[same]
        self._add(cells, place, rows["row"][settled])
        open_keys = np.setdiff1d(keys, rows["key"][settled], assume_unique=True)
        if len(open_keys):
            self._reselect(cells, place, target, np.isin(rows["key"], open_keys))

    def _add(self, cells: Cells, place: int, rows: Ints) -> None:
        cells.add(rows, place, self._shape_of[rows])

    def _plan_bytes(self, profile: DeviceProfile) -> Ints:
        """Return what Algorithm 1 compares with a budget of this device's counter, per shape that has a budget.

        The counter decides, not the device, and the size of the task plays no part: counted once per plan and way.
        """
        assert self._graph is not None
        if profile.fit_counter not in self._plan_bytes_of:
            used = np.unique(self._shape_of[self._budget["row"]])
            used = used[used >= 0]
            alike: dict[tuple[str | None, int], int] = {}
            for shape in used:
                alike.setdefault((self.shapes[shape].plan_hash, self.shapes[shape].way), int(shape))
            first = np.array(list(alike.values()), np.int64)
            prices = self._pricer.price(self.shapes, [profile], (first, np.zeros_like(first)))
            peaks = prices["peak_bytes"].to_numpy() - fixed_bytes(self._graph, profile) if len(first) else []
            found = dict(zip(alike, peaks, strict=True))
            table = np.full(len(self.shapes), np.iinfo(np.int64).max)
            table[used] = [found[self.shapes[shape].plan_hash, self.shapes[shape].way] for shape in used]
            self._plan_bytes_of[profile.fit_counter] = table
        return self._plan_bytes_of[profile.fit_counter]

    def _reselect(self, cells: Cells, place: int, target: Target, open_rows: NDArray[np.bool_]) -> None:
        by_key: dict[int, list[int]] = {}
        for number in np.flatnonzero(open_rows):
            by_key.setdefault(int(self._budget["key"][number]), []).append(int(number))
        keys = list(by_key)
        found, admitted_none = [], []
        for start in range(0, len(keys), BATCH_TASKS):
            batch = keys[start : start + BATCH_TASKS]
            facts = {key: self._facts(by_key[key][0]) for key in batch}
            deltas = self._reselection.deltas([f[:2] for f in facts.values()]) if self._reselection else {}
            for key in batch:
                task, checkpoint, method, variant, way = facts[key]
                delta = deltas.get((task, checkpoint))
                decision = None
                if delta is not None and self._reselection is not None:
                    decision = self._reselection.decide(
                        task, delta, way=way, profile=target.profile, device=target.device
                    )
                numbers = by_key[key]
                if decision is not None and decision.status == "infeasible":
                    admitted_none.append(numbers[0])
                    continue
                tuned = [n for n in numbers if decision is not None and self._budget["plan"][n] == decision.plan.hash]
                if tuned:
                    found.append(tuned[0])
                    continue
                cells.untold += decision is None
                name = (target.label, method, variant)
                cells.needs_tuning[name] = cells.needs_tuning.get(name, 0) + 1
        self._add(cells, place, self._budget["row"][np.array(found, np.int64)])
        rows = self._budget["row"][np.array(admitted_none, np.int64)]
        cells.add(rows, place, np.array([self._empty_shape(shape) for shape in self._shape_of[rows]], np.int64),
                  infeasible=True)  # fmt: skip

    def _facts(self, number: int) -> tuple[str, str, str, str, int]:
        row = self._budget
        return (str(row["task_id"][number]), str(row["checkpoint"][number]), str(row["method"][number]),
                str(row["variant"][number]), int(row["way"][number]))  # fmt: skip

    def _empty_shape(self, shape: int) -> int:
        """Return the number of the same shape with nothing updated, added where no row has it."""
        wanted = Shape(**{**self.shapes[shape].__dict__, "plan_hash": None})
        if wanted not in self.shapes:
            self.shapes.append(wanted)
        return self.shapes.index(wanted)


_NEXT = [0]
"""Questions are numbered: several may be asked of one run, each has its own tables."""
_NUMBERED = """
CREATE TABLE {schema}.wi_rows AS
SELECT row_number() OVER () - 1 AS row, * FROM stored
"""
_SHAPE_COLUMNS = (
    "backbone, resolution, method, plan_hash IS NULL AS empty, plan_layers, plan_channels,"
    " coalesce(fisher_macs, 0) > 0 AS inspects, way, support_size,"
    " CASE WHEN method = 'transductive' THEN query_size ELSE 0 END AS queries, batch"
)
_PRICED = "batch IS NOT NULL AND latency_ms IS NOT NULL AND support_size > 0"
_SHAPES = f"""
CREATE OR REPLACE TEMP TABLE wi_shapes AS
SELECT row_number() OVER () - 1 AS shape, * FROM (
    SELECT {_SHAPE_COLUMNS}, min(plan_hash) AS plan_hash FROM wi_rows WHERE {_PRICED} GROUP BY ALL
);
SELECT backbone, resolution, method, plan_hash, inspects, way, support_size, queries, batch
FROM wi_shapes ORDER BY shape
"""
_SHAPE_OF = f"""
SELECT coalesce(s.shape, -1) AS shape FROM (SELECT row, {_SHAPE_COLUMNS}, {_PRICED} AS priced FROM wi_rows) r
LEFT JOIN wi_shapes s ON r.priced AND r.backbone = s.backbone AND r.resolution = s.resolution AND r.method = s.method
    AND r.empty = s.empty AND r.plan_layers = s.plan_layers AND r.plan_channels = s.plan_channels
    AND r.inspects = s.inspects AND r.way = s.way AND r.support_size = s.support_size AND r.queries = s.queries
    AND r.batch = s.batch
ORDER BY r.row
"""
_KEYS = """
SELECT arg_min(row, CASE WHEN status = 'ok' THEN 0 ELSE 1 END * 1e12 + row)::BIGINT AS row FROM wi_rows
GROUP BY task_id, checkpoint, method, variant HAVING count(budget_memory_bytes) = 0 ORDER BY 1
"""
_BUDGETED = """
WITH keys AS (
    SELECT row_number() OVER () AS key, * FROM (SELECT DISTINCT task_id, checkpoint, method, variant FROM wi_rows
    WHERE budget_memory_bytes IS NOT NULL)
)
SELECT k.key, r.row, r.task_id, r.checkpoint, r.method, r.variant, r.device, r.way, coalesce(r.plan_hash, '') AS plan,
    r.budget_memory_bytes AS memory, r.budget_backward_macs AS macs, coalesce(r.fit_counter, '') AS counter,
    r.plan_status = 'infeasible' AS infeasible
FROM wi_rows r JOIN keys k USING (task_id, checkpoint, method, variant)
WHERE r.budget_memory_bytes IS NOT NULL ORDER BY k.key, memory, r.row
"""
