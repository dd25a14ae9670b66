"""Stored cells priced on other devices, without tuning: from the stored plans and counts alone.

A price depends on the plan's shape (which layers, how many channels), the task's size and the device; so every
distinct combination is priced once. Before anything is trusted, stored prices are reproduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tinytrain_dist.costs.plan_arrays import plan_arrays
from tinytrain_dist.costs.price_table import price_table
from tinytrain_dist.costs.pricing import Price
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.costs.static_plans import STATIC_METHODS, static_plan
from tinytrain_dist.costs.workload import Workload
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import UpdatePlan, plan_from_json
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.stored_parts import part_view

Ints = NDArray[np.int64]
PRICE_COLUMNS = tuple(field.name for field in fields(Price))
QUERY_METHODS = frozenset({"transductive"})
"""Methods that pass the unlabelled query images in every iteration."""
SAME = 1e-6
"""Relative difference up to which a price counts as reproduced."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides the price of a cell, next to the device; ``plan_hash`` is one stored plan of that shape."""

    backbone: str
    resolution: int
    method: str
    plan_hash: str | None
    inspects: bool
    way: int
    support_size: int
    query_size: int
    batch: int


class Pricer:
    """Prices shapes of one run on any device.

    Parameters
    ----------
    run
        The run whose settings (iterations, optimizer, inspected blocks) hold.

    Raises
    ------
    ConfigError
        ``run.json`` lacks the settings, or the run stored no plans.
    """

    def __init__(self, run: RunResults) -> None:
        identity = run.record.get("identity") or {}
        try:
            finetune, selection = identity["finetune"], identity["selection"]
            self.iterations, self.optimizer = int(finetune["iterations"]), str(finetune["optimizer"])
            self.inspect_blocks = int(selection["inspect_blocks"])
        except (KeyError, TypeError, ValueError) as exc:
            raise ConfigError(f"{run.path}: run.json does not say how the run was tuned ({exc}); no what-if") from exc
        self._run = run
        self._has_plans = part_view(run, "plans") is not None
        self._plans: dict[str, UpdatePlan] = {}

    def plans(self, hashes: Sequence[str]) -> dict[str, UpdatePlan]:
        """Return the stored plans by hash; raises ``ConfigError`` where one is missing."""
        wanted = sorted(set(hashes) - set(self._plans))
        if not wanted:
            return self._plans
        if not self._has_plans:
            raise ConfigError(f"{self._run.path / 'plans'}: the run stored no plans; no what-if")
        found = self._run.connection.execute(
            "SELECT plan_hash, any_value(plan) FROM stored_plans WHERE list_contains(?, plan_hash) GROUP BY plan_hash",
            [wanted],
        ).fetchall()
        self._plans |= {name: plan_from_json(text, name=f"plan {name}") for name, text in found}
        missing = sorted(set(wanted) - set(self._plans))
        if missing:
            raise ConfigError(f"{self._run.path / 'plans'}: plan {missing[0]} is missing; no what-if")
        return self._plans

    def price(self, shapes: Sequence[Shape], profiles: Sequence[DeviceProfile], pairs: tuple[Ints, Ints]) -> pa.Table:
        """Return the columns of ``Price`` for every (shape, profile) pair of places, NULL where nothing is known."""
        plans = self.plans([shape.plan_hash for shape in shapes if shape.plan_hash])
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, shape in enumerate(shapes):
            groups.setdefault(_workload_key(shape), []).append(place)
        columns: dict[str, NDArray[Any]] = {}
        of_group = np.zeros(len(shapes), np.int64)
        for number, places in enumerate(groups.values()):
            of_group[places] = number
        for number, places in enumerate(groups.values()):
            rows = np.flatnonzero(of_group[pairs[0]] == number)
            if not len(rows):
                continue
            found = self._priced([shapes[p] for p in places], places, profiles, pairs[0][rows], pairs[1][rows], plans)
            for name, values in found.items():
                columns.setdefault(name, np.empty(len(pairs[0]), values.dtype))[rows] = values
        return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})

    def _priced(
        self, shapes: list[Shape], places: list[int], profiles: Sequence[DeviceProfile], of: Ints, device: Ints,
        plans: dict[str, UpdatePlan],
    ) -> dict[str, NDArray[Any]]:  # fmt: skip
        first = shapes[0]
        graph = layer_graph(first.backbone, first.resolution)
        names = sorted({shape.plan_hash or "" for shape in shapes})
        number = {name: place for place, name in enumerate(names)}
        chosen = [plans[name].check(graph) if name else UpdatePlan(backbone=first.backbone) for name in names]
        local = np.searchsorted(np.array(places), of)
        plan = np.array([number[shape.plan_hash or ""] for shape in shapes], np.int64)[local]
        support = np.array([shape.support_size for shape in shapes], np.int64)[local]
        iterations = np.array([0 if plan.is_empty else self.iterations for plan in chosen], np.int64)[plan]
        uses_query = first.method in QUERY_METHODS
        workload = Workload(
            support_size=first.support_size, iterations=self.iterations, batch=first.batch, optimizer=self.optimizer,
            inspected=graph.last_blocks(min(self.inspect_blocks, graph.num_blocks)) if first.inspects else (),
            full=_is_full(first.method, first.backbone), way=first.way,
            extra_images=first.query_size if uses_query else 0,
        )  # fmt: skip
        cells = {"plan": plan, "device": device, "support_size": support, "iterations": iterations}
        return price_table(graph, cells, plans=plan_arrays(graph, chosen), profiles=profiles, workload=workload)


def _workload_key(shape: Shape) -> tuple[Any, ...]:
    """Return what ``price_table`` takes one value of; the task's size is a column of its own."""
    sizes = (shape.support_size, shape.query_size) if shape.method in QUERY_METHODS else ()
    counted = _is_full(shape.method, shape.backbone)
    return (shape.backbone, shape.resolution, shape.inspects, counted, shape.way, shape.batch, *sizes)


def _is_full(method: str, backbone: str) -> bool:
    """Return whether FullTrain's formula counts the memory; methods from elsewhere are counted by their plan."""
    if method not in STATIC_METHODS or method == "sparse_update":
        return False
    return static_plan(method, layer_graph(backbone)).full
