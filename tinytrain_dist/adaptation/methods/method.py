"""What a method is: a decision per device (which plan), and an outcome per distinct plan."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.adaptation.fine_tuning import Adaptation, EpisodeObjective, Objective, fine_tune
from tinytrain_dist.adaptation.fisher import FisherInformation
from tinytrain_dist.adaptation.joint_tuning import fine_tune_together
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.foundation.registry import Registry
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import Side, UpdatePlan


@dataclass(frozen=True, kw_only=True)
class PlanQuestion:
    """What a method may look at when it decides for one device.

    Attributes
    ----------
    fisher
        Fisher information of the task; measured at the first call, then shared by every device.
    weight_norm, channel_norms
        L2 norm of a layer's weights: of all, and per channel of a side.
    device
        Name of the device: it may have a channel ratio of its own.
    budget, memory_of
        The device's budget, and the bytes a plan takes by the rule that budget is stated in.
    """

    graph: LayerGraph
    task_id: str
    settings: SelectionSettings
    budget: Budget
    memory_of: Callable[[UpdatePlan], int]
    fisher: Callable[[], FisherInformation]
    weight_norm: Callable[[int], float]
    channel_norms: Callable[[int, Side], NDArray[np.float64]]
    device: str = ""


class Method(ABC):
    """One adaptation method. Another package offers an instance under the entry point ``tinytrain_dist.methods``.

    Attributes
    ----------
    name, citation
        Name used everywhere, and where the method comes from.
    uses_network
        False for baselines that run no network and cost no device anything.
    has_budget
        True where the plan depends on the device's budget.
    measures_fisher
        True where the device pays for a Fisher pass.
    is_full
        True where memory is counted by FullTrain's formula.
    uses_query
        True where every iteration passes the unlabelled query images too.
    """

    name: str
    citation: ClassVar[str]
    uses_network: ClassVar[bool] = True
    has_budget: ClassVar[bool] = False
    measures_fisher: bool = False
    is_full: ClassVar[bool] = False
    uses_query: ClassVar[bool] = False
    tuner: ClassVar[str] = "fine_tune"
    """Methods with the same tuner and the same plan have the same outcome: it is computed once."""

    def check(self, graph: LayerGraph, selection: SelectionSettings) -> None:  # noqa: B027 - most run on every network
        """Raise ``ConfigError`` where the method can run on no task of this network; asked before anything runs."""

    @abstractmethod
    def decide(self, question: PlanQuestion) -> Decision:
        """Return which weights are updated on one device."""

    @property
    def can_join(self) -> bool:
        """Whether its outcome is the fine-tuning of a plan and nothing else, which several tasks can share steps of."""
        return type(self).adapt is Method.adapt

    def objective(self) -> Objective:
        """Return what the steps of its tunings minimise."""
        return EpisodeObjective()

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        """Return the outcome of ``plan`` on ``task``."""
        return fine_tune(task, plan, objective=self.objective())

    def adapt_together(self, tasks: Sequence[TargetTask], plans: Sequence[UpdatePlan]) -> list[Adaptation]:
        """Return the outcomes of tasks with plans of one kind that make their steps together (``can_join``)."""
        assert self.can_join, f"{self.name} does more than fine-tune"
        return fine_tune_together(tasks, plans, objective=self.objective())

    def variant_settings(self, finetune: FineTuneSettings, selection: SelectionSettings) -> dict[str, object]:
        """Return the settings this method's outcome depends on, a name to a value."""
        return {"scale": finetune.scale, "distance": finetune.distance, **training_settings(finetune)}


def training_settings(finetune: FineTuneSettings) -> dict[str, object]:
    """Return the fine-tuning settings that change an outcome."""
    settings: dict[str, object] = {
        "optimizer": finetune.optimizer,
        "learning_rate": finetune.learning_rate,
        "iterations": finetune.iterations,
        "augment": finetune.augment,
        "mode": finetune.mode,
    }
    if finetune.mode == "fast":
        settings["pool_views"] = finetune.pool_views
    settings |= arithmetic(finetune)
    return settings | ({"momentum": finetune.momentum} if finetune.optimizer == "sgd" else {})


def arithmetic(finetune: FineTuneSettings) -> dict[str, object]:
    """Return the arithmetic where it is another one than float32, and the device where it is no CPU."""
    found: dict[str, object] = {} if finetune.numerics == "fp32" else {"numerics": finetune.numerics}
    return found if finetune.device == "cpu" else found | {"device": finetune.device}


def _modules() -> list[str]:
    return [m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name != "method"]


METHODS: Registry[Method] = Registry(
    "method",
    package="tinytrain_dist.adaptation.methods",
    modules=_modules,
    entry_point_group="tinytrain_dist.methods",
)
