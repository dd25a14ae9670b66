"""The unit of work: one task on one checkpoint. Fisher once, each distinct plan tuned once, every device priced."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch

from tinytrain_dist.adaptation.fine_tuning import Adaptation, pass_start
from tinytrain_dist.adaptation.fisher import FisherInformation, fisher_information
from tinytrain_dist.adaptation.methods import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.task import NotFiniteError, TargetTask
from tinytrain_dist.adaptation.weight_norms import channel_norms, weight_norm
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.costs.pricing import device_budget, plan_memory_bytes
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import Episode, EpisodeSpec, load_episode
from tinytrain_dist.execution.executor import describe
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, StorageError, TinyTrainError
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan
from tinytrain_dist.simulation.request import Cells, UnitSetup
from tinytrain_dist.simulation.rows import Row, RowMaker, StoredOutcome

FP32_BYTES = 4
"""A memory budget given in the settings is counted at fp32, as the paper's."""


Decided = list[Decision] | Exception
"""A method's decision for each device, or what went wrong."""


@dataclass(frozen=True)
class Wanted:
    """A plan to tune; methods and devices with equal plans share its outcome.

    Attributes
    ----------
    cut
        Layer at which the frozen prefix of the plan ends.
    """

    method: Method
    plan: UpdatePlan
    cut: int

    @property
    def key(self) -> tuple[str, str]:
        """What the outcome is known by: the tuner, and the plan's hash."""
        return self.method.tuner, self.plan.hash


@dataclass
class UnitResult:
    """Rows of one unit, and what was found on the way.

    Attributes
    ----------
    plans
        Plan hash -> plan.
    curves
        (variant, method, plan hash) -> the outcome with its learning curve.
    tuned_alone
        Why the unit's tunings were not made together with those of others, where they should have been.
    """

    rows: list[Row] = field(default_factory=list)
    plans: dict[str, UpdatePlan] = field(default_factory=dict)
    curves: dict[tuple[str, str, str], Adaptation] = field(default_factory=dict)
    fisher: FisherInformation | None = None
    tuned_alone: str = ""


@dataclass
class StoredTask:
    """What earlier commands of the same run found out about a task: on the CPU the bits of finding it out again.

    Attributes
    ----------
    outcomes
        (tuner, plan hash; None where nothing is updated) -> the outcome of that plan.
    """

    outcomes: dict[tuple[str, str | None], StoredOutcome] = field(default_factory=dict)
    fisher: FisherInformation | None = None


class Unit:
    """One task on one checkpoint, with everything its methods share computed at first need."""

    def __init__(
        self,
        spec: EpisodeSpec,
        *,
        network: FoldedNetwork,
        setup: UnitSetup,
        attempt: int,
        stored: StoredTask | None = None,
    ) -> None:
        self.spec, self.network, self.setup, self.attempt = spec, network, setup, attempt
        self._stored = stored or StoredTask()
        self.tuned_alone = ""
        self._outcomes: dict[tuple[str, str], tuple[Adaptation | StoredOutcome | Exception, float]] = {}

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
        if self._stored.fisher is not None:
            return self._stored.fisher
        selection = self.setup.selection
        inspected = self.network.graph.last_blocks(selection.inspect_blocks)
        return fisher_information(self.task, inspected, point=selection.fisher_point)

    def run(self, cells: Cells) -> UnitResult:
        """Return the rows of every (method, device) in ``cells``; a failure of the task becomes rows.

        Raises ``MachineError`` where it is the machine that fails: no row may say that.
        All plans are decided first, then the distinct ones are tuned, earliest cut first: each later one continues
        from what the frozen layers below it made for the one before.
        """
        decided = self.decide(cells)
        for tuning in self.wanted(cells, decided):
            self.tune(tuning)
        return self.result(cells, decided)

    def decide(self, cells: Cells) -> list[Decided]:
        """Return what each method of ``cells`` decides for its devices."""
        return [self._decide(METHODS[name], devices) for name, devices in cells]

    def result(self, cells: Cells, decided: Sequence[Decided]) -> UnitResult:
        """Return the rows, once every wanted plan has its outcome."""
        result = UnitResult(tuned_alone=self.tuned_alone)
        for (name, devices), decisions in zip(cells, decided, strict=True):
            self._add_rows(result, METHODS[name], devices, decisions)
        if self._stored.fisher is None:
            result.fisher = self.__dict__.get("fisher")
        return result

    def _decide(self, method: Method, devices: tuple[str, ...]) -> Decided:
        """Return the method's decision for each device, or what went wrong."""
        try:
            if method.has_budget:
                return [method.decide(self._question(self.setup.profile(device))) for device in devices]
            return [method.decide(self._question(self.setup.profile(devices[0])))] * len(devices)
        except Exception as error:  # a failed method is rows with its error, never the end of a run
            check_machine(error)
            return error

    def wanted(self, cells: Cells, decided: Sequence[Decided]) -> list[Wanted]:
        """Return each distinct plan that has no outcome yet, earliest cut first."""
        graph = self.network.graph
        found = {
            tuning.key: tuning
            for (name, _), decisions in zip(cells, decided, strict=True)
            if not isinstance(decisions, Exception)
            for decision in decisions
            for tuning in [Wanted(METHODS[name], decision.plan, _cut(decision.plan, graph))]
        }
        for key, tuning in found.items():
            known = self._stored.outcomes.get((key[0], None if tuning.plan.is_empty else key[1]))
            if known is not None:
                self._outcomes[key] = known, known.host_ms
        missing = [tuning for key, tuning in found.items() if key not in self._outcomes]
        return sorted(missing, key=lambda tuning: (tuning.cut, tuning.key))

    def tune(self, wanted: Wanted) -> None:
        """Tune one plan; what goes wrong is its outcome."""
        start = time.perf_counter()
        try:
            outcome: Adaptation | Exception = wanted.method.adapt(self.task, wanted.plan)
        except Exception as error:  # as above
            check_machine(error)
            outcome = error
        self.keep(wanted, outcome, host_ms=1e3 * (time.perf_counter() - start))

    def keep(self, wanted: Wanted, outcome: Adaptation | Exception, *, host_ms: float) -> None:
        """Take over the outcome of a plan, and the milliseconds of this machine that it took."""
        self._outcomes[wanted.key] = outcome, host_ms

    def _add_rows(self, result: UnitResult, method: Method, devices: tuple[str, ...], decisions: Decided) -> None:
        maker = RowMaker(self.spec, method=method, setup=self.setup, graph=self.network.graph, attempt=self.attempt)
        for number, device in enumerate(devices):
            try:
                if isinstance(decisions, Exception):
                    raise decisions
                result.rows.append(self._row(result, maker, device, decisions[number]))
            except Exception as error:  # as above
                check_machine(error)
                status = "diverged" if isinstance(error, NotFiniteError) else "error"
                result.rows.append(maker.failed(device, status=status, error=error))

    def _row(self, result: UnitResult, maker: RowMaker, device: str, decision: Decision) -> Row:
        method, plan = maker.method, decision.plan
        outcome, host_ms = self._outcomes[method.tuner, plan.hash]
        if isinstance(outcome, Exception):
            raise outcome
        if not plan.is_empty:
            result.plans[plan.hash] = plan
            if isinstance(outcome, Adaptation):
                result.curves[maker.variant, method.name, plan.hash] = outcome
        profile = self.setup.profile(device)
        budget = self._budget(profile) if method.has_budget else None
        row = maker.row(profile, episode=self.episode, decision=decision, outcome=outcome, budget=budget)
        return row | {"host_ms": host_ms}

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
            channel_norms=partial(channel_norms, self.network),
            device=profile.name,
        )

    def _memory_rule(self, profile: DeviceProfile) -> Callable[[UpdatePlan], int]:
        graph, optimizer = self.network.graph, self.setup.finetune.optimizer
        counted_at = profile if self.setup.selection.memory_bytes is None else FP32_BYTES
        inspected = graph.last_blocks(self.setup.selection.inspect_blocks)
        rule = partial(plan_memory_bytes, optimizer=optimizer, way=self.episode.way, inspected=inspected)
        return lambda plan: rule(graph, plan, counted_at)


class MachineError(TinyTrainError):
    """This machine cannot compute tasks: its disk, its files or its settings are not as they have to be."""

    exit_code = ExitCode.STORAGE


_OF_MACHINE = (StorageError, ConfigError, MachineError, torch.OutOfMemoryError, torch.AcceleratorError)


def check_machine(error: Exception) -> None:
    """Raise ``MachineError`` for what any other task would meet here, too: a system call that fails, settings.

    A task's own trouble (an image that cannot be decoded, too much memory, a bug) is none: it would fail anywhere. A
    GPU is shared by workers, and what a task takes of it is bounded: a full or a broken one is the machine's trouble.
    """
    of_system = isinstance(error, OSError) and error.errno is not None  # an image library raises it without a number
    if of_system or isinstance(error, _OF_MACHINE):
        raise MachineError(f"{socket.gethostname()}: {describe(error)}") from error


def _cut(plan: UpdatePlan, graph: LayerGraph) -> int:
    """Return the layer at which the frozen prefix of ``plan`` ends."""
    return len(graph.layers) if plan.is_empty else pass_start(plan, graph)
