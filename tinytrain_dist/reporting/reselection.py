"""The plan TinyTrain would choose under another budget, from stored Fisher information: no network is run.

Algorithm 1 needs Fisher information per channel (stored per task), the layer graph and the budget. A criterion that
looks at the weights cannot be answered from stored data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.adaptation.criteria import CRITERIA
from tinytrain_dist.adaptation.selection import Decision, SelectionInput, layer_facts, select_plan
from tinytrain_dist.adaptation.settings import SelectionSettings
from tinytrain_dist.costs.fit import device_budget, plan_memory_bytes
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.foundation.errors import ConfigError, TinyTrainError
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, Side, UpdatePlan
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.stored_parts import finite, part_view

FP32_BYTES = 4
Deltas = Mapping[int, NDArray[np.float64]]


class _NeedsWeightsError(Exception):
    """The settings look at the weights, which a run does not store."""


class Reselection:
    """Algorithm 1 on stored Fisher information, for one run and one network."""

    def __init__(self, run: RunResults, graph: LayerGraph) -> None:
        self._run, self._graph = run, graph
        self.settings = selection_settings(run.record.get("identity") or {})
        self._has_fisher = self.settings is not None and part_view(run, "fisher") is not None
        self._optimizer = str((run.record.get("identity") or {}).get("finetune", {}).get("optimizer", "adam"))
        self._memory: dict[tuple[Any, ...], int] = {}

    def deltas(self, cells: list[tuple[str, str]]) -> dict[tuple[str, str], Deltas]:
        """Return the Fisher information per layer of every (task, checkpoint) it was stored for, where it is finite."""
        if not self._has_fisher or not cells:
            return {}
        rows = self._run.connection.execute(
            "SELECT DISTINCT ON (task_id, checkpoint, layer) task_id, checkpoint, layer, delta FROM stored_fisher "
            "WHERE list_contains(?, task_id)", [sorted({task for task, _ in cells})],
        ).fetchall()  # fmt: skip
        found: dict[tuple[str, str], dict[int, NDArray[np.float64]]] = {}
        for task, checkpoint, layer, delta in rows:
            found.setdefault((task, checkpoint), {})[layer] = np.asarray(delta, np.float64)
        return finite(found)

    def decide(self, task: str, delta: Deltas, *, way: int, profile: DeviceProfile, device: str) -> Decision | None:
        """Return what TinyTrain would decide on ``profile``, or None where stored data cannot tell."""
        settings = self.settings
        if settings is None:
            return None
        given = SelectionInput(
            graph=self._graph, delta=delta, weight_norms=dict.fromkeys(delta, float("nan")),
            channel_norms=_no_norms, task_id=task, settings=settings, device=device,
            budget=device_budget(self._graph, profile, memory_bytes=settings.memory_bytes,
                                 compute_share=settings.compute_share),
            memory_of=self._memory_rule(profile, way),
        )  # fmt: skip
        try:
            score = CRITERIA[settings.criterion]
            if any(np.isnan(score(layer_facts(given, layer))) for layer in delta):
                return None
            return select_plan(given)
        except _NeedsWeightsError:
            return None

    def _memory_rule(self, profile: DeviceProfile, way: int) -> Callable[[UpdatePlan], int]:
        """Memory depends on how many channels a plan updates, not on which: counted once per shape."""
        assert self.settings is not None
        counted_at: DeviceProfile | int = profile if self.settings.memory_bytes is None else FP32_BYTES
        counter = profile.fit_counter if self.settings.memory_bytes is None else FP32_BYTES
        inspected = self._graph.last_blocks(min(self.settings.inspect_blocks, self._graph.num_blocks))

        def memory(plan: UpdatePlan) -> int:
            shape = tuple((u.layer, None if u.channels is None else len(u.channels), u.side) for u in plan.updates)
            key = (counter, way, shape)
            if key not in self._memory:
                plain = _first_channels(plan)
                self._memory[key] = plan_memory_bytes(
                    self._graph, plain, counted_at, optimizer=self._optimizer, way=way, inspected=inspected
                )
            return self._memory[key]

        return memory


def selection_settings(identity: Mapping[str, Any]) -> SelectionSettings | None:
    """Return the selection settings of a run's identity, or None where this version does not know them all."""
    raw = dict(identity.get("selection") or {})
    known = SelectionSettings.__dataclass_fields__
    if not raw or not set(raw) <= set(known):
        return None
    raw["device_ratios"] = tuple((device, ratio) for device, ratio in raw.get("device_ratios", ()))
    raw.pop("scheme", None)  # of sparse_update: tinytrain's plans do not look at it
    try:
        return SelectionSettings(**raw)
    except (TypeError, ConfigError, TinyTrainError):
        return None


def _first_channels(plan: UpdatePlan) -> UpdatePlan:
    updates = tuple(
        LayerUpdate(layer=u.layer, channels=None if u.channels is None else tuple(range(len(u.channels))), side=u.side)
        for u in plan.updates
    )
    return UpdatePlan(backbone=plan.backbone, updates=updates)


def _no_norms(layer: int, side: Side) -> NDArray[np.float64]:
    raise _NeedsWeightsError
