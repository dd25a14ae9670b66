"""Episodes per second of meta-training beside a plain loop, two actors beside one, a round's overhead, memory.

Run from the repository: ``python -m benchmarks.metatraining [--episodes N] [--repeats N] [--parts ...]``. 5-way 5-shot
15-query at 84 pixels (100 images an episode), one thread. Part ``loop`` runs in one process: arms take turns, CPU
seconds of the process, the smallest of the repeats counts. Plain (``benchmarks/plain_metatraining.py``) once decodes an
image at every access, as the libraries' image sets do, and once holds all in memory; ours decodes once, prepares the
next episode on a thread, and takes one step per round of eight. Part ``actors`` needs two free cores and says what load
it found: wall time is all that can be measured there.

Conv-4 (four times convolution 3x3 of 64 channels, BN, ReLU6, max-pooling 2) is no backbone of this project, which is
about networks that fit a microcontroller: its first map alone takes 1.7 MiB an image, and pooling between layers stands
in no cost rule here. The training floor does not care: the benchmark hands it the network (``Conv4``).
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy and PyTorch start their threads

# ruff: noqa: E402
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from benchmarks.plain_metatraining import QUERY, SHOT, WAY, ImageSet, PlainNetwork, plain_training
from tinytrain_dist.backbones.flat_state import FlatState, state_to_flat
from tinytrain_dist.backbones.network import Backbone, init_weights
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec
from tinytrain_dist.execution.settings import ExecutorSettings, cluster, open_worker_group
from tinytrain_dist.execution.worker_group import WorkerGroup
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph
from tinytrain_dist.metatraining.episode_worker import EpisodeWorker
from tinytrain_dist.metatraining.learner import Learner
from tinytrain_dist.metatraining.replica import SlotResult
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import Slot

RESOLUTION, K = 84, 8
DOMAIN = "signs"
"""100 classes of exactly 20 images: every episode has 100. Nothing that is trained here is kept."""
LOOP_TARGET, ACTORS_TARGET, OVERHEAD_TARGET = 1.5, 1.85, 0.08


def conv4_graph(resolution: int = RESOLUTION) -> LayerGraph:
    """Return the convolutions of Conv-4; every map but the first is half of the one before, by pooling."""
    layers = []
    for index in range(4):
        size = resolution >> index
        layers.append(
            ConvLayer(
                index=index, block=index - 1, role="stem" if index == 0 else "expand", in_channels=64 if index else 3,
                out_channels=64, kernel=3, stride=1, groups=1, in_size=size, out_size=size, residual_after=False,
            )
        )  # fmt: skip
    return LayerGraph(name="conv4", resolution=resolution, layers=tuple(layers))


class Conv4(Backbone):
    """Conv-4 (Snell et al., NeurIPS 2017): maximum of every 2 x 2 pixels after each layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``[N, 64]``: the mean over the last map, which the head of this project wants."""
        for index in range(len(self.units)):
            x = max_pool2d(self.unit(index)(x), 2)
        return x.mean(dim=(2, 3))


class PlainConv4(PlainNetwork):
    """The same, as torch's own modules."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``[N, 64]``."""
        for unit in self.units:
            x = max_pool2d(unit(x), 2)
        return x.mean(dim=(2, 3))


@dataclass(frozen=True)
class Network:
    """One network, our way and the plain way."""

    graph: LayerGraph
    ours: type[Backbone]
    plain: type[PlainNetwork]

    def drawn(self) -> Backbone:
        """Return ours, freshly initialised."""
        backbone = self.ours(self.graph)
        init_weights(backbone, 0)
        return backbone


NETWORKS = {
    "mcunet": Network(layer_graph("mcunet", RESOLUTION), Backbone, PlainNetwork),
    "conv4": Network(conv4_graph(), Conv4, PlainConv4),
}


class GraphWorker(EpisodeWorker):
    """An ``EpisodeWorker`` on any graph; says how long a slot took and what memory its process reached."""

    def __init__(self, name: str) -> None:
        super().__init__("mobilenet_v2_w0.1", RESOLUTION)
        self.backbone = NETWORKS[name].drawn()
        self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layer in self.backbone.graph.layers:
            self.backbone.unit(layer.index).norm.momentum = 1.0

    def timed(self, weights: FlatState, head: FlatState, slot: Slot) -> tuple[SlotResult, float]:
        """Return the slot's result and its seconds."""
        start = time.perf_counter()
        return self.learn(weights, head, slot), time.perf_counter() - start

    def peak_bytes(self, slot: Any) -> int:
        """Return the largest resident size of this process so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Ours:
    """Learner and slots of one network."""

    name: str
    num_episodes: int

    def __post_init__(self) -> None:
        network = NETWORKS[self.name]
        settings = MetaTrainSettings(num_episodes=self.num_episodes, episodes_per_round=K, resolution=RESOLUTION)
        self.learner = Learner(
            settings,
            network.graph,
            state_to_flat(network.drawn()),
            head=np.array([10.0], np.float32),
            num_rounds=10_000,
        )

    def slots(self, first: int, count: int) -> list[Slot]:
        """Return slots without augmentation, as the plain loop has none."""
        domain, shape = open_domain(DOMAIN), EpisodeSettings(way=WAY, shot=SHOT, query=QUERY)
        return [
            Slot(spec=EpisodeSpec.of(domain, split="test", settings=shape, seed=0, index=index))
            for index in range(first, first + count)
        ]

    def alone(self, group: WorkerGroup, count: int) -> float:
        """Return the seconds of ``count`` workers for a call each of ``num_episodes``: no learner, no rounds."""
        shared = [self.learner.weights, self.learner.head]
        slots = self.slots(0, self.num_episodes) * count
        start = time.perf_counter()
        group.run_round("timed", shared, slots)
        return time.perf_counter() - start

    def rounds(self, group: WorkerGroup) -> list[float]:
        """Train ``num_episodes`` in rounds of ``K``; returns the seconds of each slot on its worker."""
        seconds: list[float] = []
        for first in range(0, self.num_episodes, K):
            shared = [self.learner.weights, self.learner.head]
            slots, after = (
                self.slots(start, max(0, min(K, self.num_episodes - start))) for start in (first, first + K)
            )
            found = group.run_round("timed", shared, slots, upcoming=after)
            self.learner.step([result for result, _ in found])
            seconds += [spent for _, spent in found]
        return seconds


def measure_loop(options: argparse.Namespace) -> None:
    """Episodes per second against the plain loop (one thread, CPU seconds)"""
    domain = open_domain(DOMAIN)
    encoded = [domain._table.encoded(index) for index in range(len(domain))]
    sets = {
        arm: ImageSet(encoded, domain.labels.tolist(), resolution=RESOLUTION, in_memory=arm == "plain, in memory")
        for arm in ("plain, decoding", "plain, in memory")
    }
    for name, network in NETWORKS.items():
        ours = Ours(name, options.episodes)
        with open_worker_group(ExecutorSettings(kind="serial"), GraphWorker, name) as group:
            arms: dict[str, Callable[[], Any]] = {
                arm: lambda own=own, network=network: plain_training(
                    network.plain(network.drawn()), own, num_episodes=options.episodes, seed=0
                )
                for arm, own in sets.items()
            }
            arms["ours"] = lambda ours=ours, group=group: ours.rounds(group)
            spent = _in_turn(arms, repeats=options.repeats)
        print(f"  {name}: {network.graph.forward_macs / 1e6:.1f} MMAC an image, {options.episodes} episodes")
        for arm, seconds in spent.items():
            ratio = seconds / spent["ours"]
            verdict = "" if arm == "ours" else f"   ours {ratio:.2f}x ({_verdict(ratio, LOOP_TARGET)})"
            print(f"    {arm:18s} {options.episodes / seconds:6.2f} episodes/s{verdict}", flush=True)


def measure_actors(options: argparse.Namespace) -> None:
    """Two actors against one, a round's overhead, memory per actor (mcunet, wall time)"""
    ours, spent = Ours("mcunet", options.episodes), dict[int, list[float]]()
    overheads: list[float] = []
    alone: dict[int, list[float]] = {}
    with cluster(ExecutorSettings(num_workers=3)):
        one, two = (ExecutorSettings(num_workers=count) for count in (1, 2))
        with (
            open_worker_group(one, GraphWorker, "mcunet") as first,
            open_worker_group(two, GraphWorker, "mcunet") as both,
        ):
            groups = {1: first, 2: both}
            for group in groups.values():
                ours.rounds(group)  # decodes, compiles
            for _ in range(options.repeats):
                for count, group in groups.items():
                    start = time.perf_counter()
                    inside = ours.rounds(group)
                    spent.setdefault(count, []).append(time.perf_counter() - start)
                    if count == 1:
                        overheads.append(spent[1][-1] / sum(inside) - 1)
                    alone.setdefault(count, []).append(ours.alone(group, count))
            peak = first.run_round("peak_bytes", [], [None])[0]
    ratio = min(spent[1]) / min(spent[2])
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(f"  load average {load:.1f} on {cores} cores (above 2: what follows is not what free cores give)")
    print(
        f"    one actor {options.episodes / min(spent[1]):.2f} episodes/s, two {options.episodes / min(spent[2]):.2f}"
    )
    print(f"    two over one {ratio:.2f}x ({_verdict(ratio, ACTORS_TARGET)})")
    most = 2 * min(alone[1]) / min(alone[2])
    print(f"    two over one without learner and rounds, each its own episodes: {most:.2f}x is what the cores give")
    least = min(overheads)
    reached = "reached" if least <= OVERHEAD_TARGET else "MISSED"
    print(
        f"    overhead of a round, K = {K}: {100 * least:.1f} % (target at most {100 * OVERHEAD_TARGET:g}: {reached})"
    )
    print(f"    memory of an actor: {peak / 2**20:.0f} MiB at most")


def _in_turn(arms: dict[str, Callable[[], Any]], *, repeats: int) -> dict[str, float]:
    """Return the smallest CPU seconds of each arm; one untimed turn first."""
    found: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(repeats + 1):
        for arm, call in arms.items():
            start = time.process_time()
            call()
            if turn:
                found[arm].append(time.process_time() - start)
    return {arm: min(values) for arm, values in found.items()}


def _verdict(value: float, target: float) -> str:
    return f"target {target:g} {'reached' if value >= target else 'MISSED'}"


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {"loop": measure_loop, "actors": measure_actors}


def main(words: Sequence[str] | None = None) -> None:
    """Print every part that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=16, help="episodes of one turn (default 16)")
    parser.add_argument("--repeats", type=int, default=3, help="the smallest time of so many counts (default 3)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {WAY}-way {SHOT}-shot {QUERY}-query, {RESOLUTION} pixels")
    for part in options.parts:
        print(f"\n{(PARTS[part].__doc__ or part).splitlines()[0]}")
        PARTS[part](options)


if __name__ == "__main__":
    main()
