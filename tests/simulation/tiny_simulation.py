"""A simulation of a second: the narrowest backbone on small images, few iterations, three kinds of devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.methods import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan
from tinytrain_dist.simulation.engine import SimulationResult, simulate
from tinytrain_dist.simulation.settings import DispatchSettings, SimulationSettings

SERIAL = ExecutorSettings(kind="serial")
DEVICES = ("stm32f746", "raspberry_pi_4b", "jetson_nano")


def tiny_settings(**changes: Any) -> SimulationSettings:
    """Return two domains of two tasks, four methods, three devices; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "domains": ("signs", "flags"),
        "num_tasks": 2,
        "episodes": EpisodeSettings(way=3, shot=2, query=3),
        "resolution": 32,
        "backbone": "mobilenet_v2_w0.1",
        "methods": ("raw_pixels", "none", "last_layer", "tinytrain"),
        "devices": DEVICES,
        "finetune": FineTuneSettings(iterations=2),
        "selection": SelectionSettings(inspect_blocks=2),
    }
    return SimulationSettings(**(fields | changes))


def run(settings: SimulationSettings, root: Path, **options: Any) -> SimulationResult:
    """Simulate in this process."""
    return simulate(settings, root=root, **({"executor": SERIAL} | options))


def chunks_of(seconds: float) -> DispatchSettings:
    """Return the setting that makes a task a chunk (0.001) or all tasks one (1000)."""
    return DispatchSettings(chunk_seconds=seconds)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the result rows of a run."""
    rows: list[dict[str, Any]] = pq.read_table(folder / "results").to_pylist()
    return rows


class LastLayerLike(Method):
    """A method that updates the last layer; tests give it the outcome they need."""

    citation = "a test"

    def __init__(self, name: str, *, domain: str = "") -> None:
        self.name = name  # type: ignore[misc]
        self.domain = domain
        self.tuner = name  # type: ignore[misc]

    def decide(self, question: PlanQuestion) -> Decision:
        layer = question.graph.layers[-1].index
        return Decision(status="ok", plan=UpdatePlan(backbone=question.graph.name, updates=(LayerUpdate(layer=layer),)))


class Raises(LastLayerLike):
    """Fails on the tasks of one domain (the empty name: of all)."""

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        if task.task_id.startswith(self.domain):
            raise RuntimeError("no luck")
        return Adaptation(accuracy_before=0.5, accuracy_after=0.5, losses=(1.0, 0.5))


class Diverges(LastLayerLike):
    """Always diverges."""

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        return Adaptation(
            accuracy_before=0.5,
            accuracy_after=None,
            losses=(1.0, float("nan")),
            status="diverged",
            message="not finite",
        )


def add_method(monkeypatch: Any, method: Method) -> None:
    """Make ``method`` known for one test."""
    list(METHODS)  # load the built-in ones first
    monkeypatch.setitem(METHODS._items, method.name, method)
