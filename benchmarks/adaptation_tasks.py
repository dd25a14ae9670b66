"""What the adaptation benchmark runs on: tasks, plans, arms and their clock."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.plain_adaptation import plain_fine_tune
from tinytrain_dist.adaptation.fine_tuning import Adaptation, fine_tune
from tinytrain_dist.adaptation.numerics import has_bf16
from tinytrain_dist.adaptation.settings import FineTuneSettings, Mode, Numerics
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.head import SCALE_DEFAULT
from tinytrain_dist.backbones.network import Backbone
from tinytrain_dist.costs.static_plans import static_plan
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import Episode, EpisodeSettings, EpisodeSpec, load_episode
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, full_plan

TWENTY_WAY = EpisodeSettings(sampler="fixed", way=20, shot=5, query=10, clamp_way=True)
FIVE_WAY = EpisodeSettings(sampler="fixed", way=5, shot=5, query=10)
TIMED_DOMAIN = "signs"
PLAN_NAMES = (
    "last_layer", "last 2 blocks", "3 layers 50 %", "5 layers 50 %", "sparse_update", "last 6 blocks", "full_train",
)  # fmt: skip
TARGET_DOMAINS = ("signs", "glyphs", "clipart", "fashion", "flags")
ARMS: dict[str, tuple[Mode, Numerics]] = {"reference": ("reference", "fp32"), "fast": ("fast", "fp32")}
if has_bf16():
    ARMS["fast bf16"] = ("fast", "bf16")
"""Our arms; the plain way stands beside them."""


class Workbench:
    """The checkpoint, and what of each kind to run."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_tasks: int,
        repeats: int,
        iterations: int,
        accuracy_tasks: int = 0,
        accuracy_plans: tuple[str, ...] = (),
    ) -> None:
        self.backbone, self.network = backbone, FoldedNetwork(backbone)
        self.graph: LayerGraph = backbone.graph
        self.num_tasks, self.repeats = num_tasks, repeats
        self.accuracy_tasks, self.accuracy_plans = accuracy_tasks, accuracy_plans
        self.iterations = iterations
        self.plans = benchmark_plans(self.graph)

    def doubled(self) -> Workbench:
        """Return the same bench in float64."""
        return Workbench(
            copy.deepcopy(self.backbone).double(), num_tasks=self.num_tasks, repeats=1, iterations=self.iterations
        )

    def episode(
        self, index: int, *, domain: str = TIMED_DOMAIN, settings: EpisodeSettings = TWENTY_WAY
    ) -> tuple[str, Episode]:
        """Return a task's identity and images."""
        source = open_domain(domain)
        spec = EpisodeSpec.of(source, split="test", settings=settings, seed=0, index=index)
        return spec.task_id, load_episode(source, spec, resolution=self.graph.resolution)

    def task(self, episode: tuple[str, Episode], arm: str = "reference") -> TargetTask:
        """Return a fresh task: nothing is cached."""
        mode, numerics = ARMS[arm]
        settings = FineTuneSettings(iterations=self.iterations, mode=mode, numerics=numerics)
        return TargetTask(episode[0], episode=episode[1], network=self.network, settings=settings, scale=SCALE_DEFAULT)

    def tune(self, arm: str, episode: tuple[str, Episode], plan: UpdatePlan) -> Adaptation:
        """Tune one plan on a fresh task."""
        if arm == "plain":
            return plain_fine_tune(self.backbone, self.task(episode), plan)
        return fine_tune(self.task(episode, arm), plan)


def benchmark_plans(graph: LayerGraph) -> dict[str, UpdatePlan]:
    """Return the named plans; half of a layer's channels are a random half."""
    rng = np.random.default_rng(0)
    end = len(graph.layers)
    plans = (
        static_plan("last_layer", graph).plan,
        layers_plan(graph, graph.last_blocks(2)),
        layers_plan(graph, (end - 9, end - 6, end - 1), ratio=0.5, rng=rng),
        layers_plan(graph, (end - 18, end - 14, end - 11, end - 8, end - 3), ratio=0.5, rng=rng),
        static_plan("sparse_update", graph).plan,
        layers_plan(graph, graph.last_blocks(6)),
        full_plan(graph),
    )
    return dict(zip(PLAN_NAMES, plans, strict=True))


def layers_plan(
    graph: LayerGraph, layers: tuple[int, ...], *, ratio: float = 1.0, rng: np.random.Generator | None = None
) -> UpdatePlan:
    """Return the plan of some layers, whole or a random share of their output channels."""
    updates = []
    for index in sorted(layers):
        channels, total = None, graph.layer(index).out_channels
        if rng is not None and ratio < 1:
            chosen = rng.choice(total, max(1, int(ratio * total)), replace=False)
            channels = tuple(sorted(int(c) for c in chosen))
        updates.append(LayerUpdate(layer=index, channels=channels))
    return UpdatePlan(backbone=graph.name, updates=tuple(updates))


def cpu_seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of the process while ``run`` ran, and its result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def in_turn(arms: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, tuple[float, Any]]:
    """Run the arms in turn, so that a slow moment of the machine hits all; keep each arm's smallest seconds."""
    best: dict[str, tuple[float, Any]] = {}
    for _ in range(repeats):
        for name, run in arms.items():
            seconds, result = cpu_seconds(run)
            if name not in best or seconds < best[name][0]:
                best[name] = seconds, result
    return best
