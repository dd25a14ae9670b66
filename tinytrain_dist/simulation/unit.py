"""The unit of work: one task on one checkpoint. Fisher once, each distinct plan tuned once, every device priced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial

from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.fisher import FisherInformation, fisher_information
from tinytrain_dist.adaptation.methods import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.adaptation.weight_norms import input_channel_norms, weight_norm
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.costs.pricing import device_budget, plan_memory_bytes
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import Episode, EpisodeSpec, load_episode
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.update_plan import UpdatePlan
from tinytrain_dist.simulation.request import Cells, UnitSetup
from tinytrain_dist.simulation.rows import Row, RowMaker

FP32_BYTES = 4
"""A memory budget given in the settings is counted at fp32, as the paper's."""


@dataclass
class UnitResult:
    """Rows of one unit, and what was found on the way."""

    rows: list[Row] = field(default_factory=list)
    plans: dict[str, UpdatePlan] = field(default_factory=dict)
    fisher: FisherInformation | None = None


class Unit:
    """One task on one checkpoint, with everything its methods share computed at first need."""

    def __init__(self, spec: EpisodeSpec, *, network: FoldedNetwork, setup: UnitSetup, attempt: int) -> None:
        self.spec, self.network, self.setup, self.attempt = spec, network, setup, attempt
        self._outcomes: dict[tuple[str, str], tuple[Adaptation, float]] = {}

    @cached_property
    def episode(self) -> Episode:
        """The task's images."""
        domain = open_domain(self.spec.domain, roots=self.setup.data_roots)
        return load_episode(domain, self.spec, resolution=self.setup.resolution)

    @cached_property
    def task(self) -> TargetTask:
        """The task bound to the checkpoint."""
        return TargetTask(
            self.spec.task_id,
            episode=self.episode,
            network=self.network,
            settings=self.setup.finetune,
            scale=self.setup.scale,
        )

    @cached_property
    def fisher(self) -> FisherInformation:
        """Fisher information of the task: measured once, shared by every device."""
        return fisher_information(self.task, self.network.graph.last_blocks(self.setup.selection.inspect_blocks))

    def run(self, cells: Cells) -> UnitResult:
        """Return the rows of every (method, device) in ``cells``; a failure becomes rows, never an exception."""
        result = UnitResult()
        for name, devices in cells:
            method = METHODS[name]
            maker = RowMaker(self.spec, method=method, setup=self.setup, graph=self.network.graph, attempt=self.attempt)
            try:
                for device, decision, outcome, host_ms in self._outcomes_of(method, devices):
                    if not decision.plan.is_empty:
                        result.plans[decision.plan.hash] = decision.plan
                    profile = self.setup.profile(device)
                    budget = self._budget(profile) if method.has_budget else None
                    row = maker.row(profile, episode=self.episode, decision=decision, outcome=outcome, budget=budget)
                    result.rows.append(row | {"host_ms": host_ms})
            except Exception as error:  # a failed method is rows with its error, never the end of a run
                done = {(row["method"], row["device"]) for row in result.rows}
                missing = [d for d in devices if (name, d) not in done]
                result.rows.extend(maker.failed(device, status="error", error=error) for device in missing)
        result.fisher = self.__dict__.get("fisher")
        return result

    def _outcomes_of(
        self, method: Method, devices: tuple[str, ...]
    ) -> Iterator[tuple[str, Decision, Adaptation, float]]:
        shared: Decision | None = None
        for device in devices:
            if method.has_budget or shared is None:
                shared = method.decide(self._question(self.setup.profile(device)))
            outcome, host_ms = self._outcome(method, shared.plan)
            yield device, shared, outcome, host_ms

    def _outcome(self, method: Method, plan: UpdatePlan) -> tuple[Adaptation, float]:
        """Return the outcome of a plan, tuned at its first need: methods and devices with equal plans share it."""
        key = (method.tuner, plan.hash)
        if key not in self._outcomes:
            start = time.perf_counter()
            outcome = method.adapt(self.task, plan)
            self._outcomes[key] = outcome, 1e3 * (time.perf_counter() - start)
        return self._outcomes[key]

    def _budget(self, profile: DeviceProfile) -> Budget:
        selection = self.setup.selection
        return device_budget(
            self.network.graph,
            profile,
            memory_bytes=selection.memory_bytes,
            compute_share=selection.compute_share,
        )

    def _question(self, profile: DeviceProfile) -> PlanQuestion:
        return PlanQuestion(
            graph=self.network.graph,
            task_id=self.spec.task_id,
            settings=self.setup.selection,
            budget=self._budget(profile),
            memory_of=self._memory_rule(profile),
            fisher=lambda: self.fisher,
            weight_norm=partial(weight_norm, self.network),
            input_norms=partial(input_channel_norms, self.network),
        )

    def _memory_rule(self, profile: DeviceProfile) -> Callable[[UpdatePlan], int]:
        graph, optimizer = self.network.graph, self.setup.finetune.optimizer
        counted_at = profile if self.setup.selection.memory_bytes is None else FP32_BYTES
        inspected = graph.last_blocks(self.setup.selection.inspect_blocks)
        rule = partial(plan_memory_bytes, optimizer=optimizer, way=self.episode.way, inspected=inspected)
        return lambda plan: rule(graph, plan, counted_at)
