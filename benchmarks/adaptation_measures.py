"""The parts of the adaptation benchmark; each prints its figures beside its targets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from scipy.stats import spearmanr

from benchmarks.adaptation_grid import (
    GRID_DEVICES,
    GRID_METHODS,
    GridTimes,
    PlainTimes,
    devices,
    known_methods,
    our_grid,
    plain_grid,
    warm_up,
)
from benchmarks.adaptation_stages import stages
from benchmarks.adaptation_tasks import ARMS, FIVE_WAY, Workbench, cpu_seconds, in_turn, layers_plan
from benchmarks.plain_adaptation import plain_fine_tune
from tinytrain_dist.adaptation.fine_tuning import EpisodeObjective, Tuning, fine_tune, make_optimizer
from tinytrain_dist.adaptation.settings import Mode
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.data.episodes import Episode
from tinytrain_dist.graphs.adapters import adapter_plan
from tinytrain_dist.graphs.update_plan import UpdatePlan

PLAN_TARGETS = {
    "last 2 blocks": (3.5, 7.0), "3 layers 50 %": (3.0, 5.5), "5 layers 50 %": (3.0, 5.5), "full_train": (1.2, 1.8),
}  # fmt: skip
GRID_TARGETS = {"over plain": (15.0, 28.0), "over plain with memo": (2.0, 3.8)}
RANDOM_PLANS = 50
FLOAT64_GAP = 1e-10


def verdict(value: float, target: float) -> str:
    """Return the target and whether it is reached."""
    return f"target {target:g} {'reached' if value >= target else 'MISSED'}"


def measure_stages(bench: Workbench) -> None:
    """One step by stage (milliseconds; ours as in mode reference)"""
    for name in ("last 2 blocks", "full_train"):
        print(f"  {name}")
        for stage, plain, ours in stages(bench, bench.plans[name]):
            print(f"    {stage:34s} plain {1e3 * plain:8.1f}   ours {1e3 * ours:8.1f}   {plain / ours:6.1f}x")


def measure_plans(bench: Workbench) -> None:
    """One tuning by plan (CPU seconds; mean over the tasks)"""
    for name, plan in bench.plans.items():
        arms = ("plain", *ARMS)
        seconds, accuracies = dict.fromkeys(arms, 0.0), {arm: list[float]() for arm in arms}
        for index in range(bench.num_tasks):
            episode = bench.episode(index)
            found = in_turn({arm: partial(bench.tune, arm, episode, plan) for arm in arms}, repeats=bench.repeats)
            for arm, (spent, outcome) in found.items():
                seconds[arm] += spent / bench.num_tasks
                accuracies[arm].append(outcome.accuracy_after)
        ratios = {arm: seconds["plain"] / seconds[arm] for arm in ARMS}
        words = [
            f"{arm} {seconds[arm]:6.2f} ({ratios[arm]:4.1f}x{_target(name, ARMS[arm][0], ratios[arm])})"
            for arm in ratios
        ]
        means = " / ".join(f"{100 * np.mean(a):.1f}" for a in accuracies.values())
        print(f"  {name:14s} plain {seconds['plain']:6.2f}   {'   '.join(words)}   accuracy {means}", flush=True)


def _target(name: str, mode: Mode, ratio: float) -> str:
    return f", {verdict(ratio, PLAN_TARGETS[name][mode == 'fast'])}" if name in PLAN_TARGETS else ""


def measure_grid(bench: Workbench) -> None:
    """Grid of methods and devices (CPU seconds per task)"""
    methods, profiles = known_methods(), devices()
    for name in GRID_METHODS:
        if name not in methods:
            print(f"  SKIPPED: no method {name}")
    for arm in ARMS:
        warm_up(bench.task(bench.episode(bench.num_tasks), arm))
    for index in range(bench.num_tasks):
        episode = bench.episode(index)
        turns = [_turn(bench, episode, num_devices=len(profiles)) for _ in range(bench.repeats)]
        ours = {arm: min((grids[arm] for grids, _ in turns), key=lambda times: times.seconds) for arm in ARMS}
        plain = min((times for _, times in turns), key=lambda times: times.seconds)
        decided = ours["reference"].counts
        print(f"  task {index}: {len(methods)} methods x {len(profiles)} devices ({', '.join(GRID_DEVICES)})")
        print(f"  distinct tinytrain plans {sum(name == 'tinytrain' for name, _ in decided)}")
        print(f"  of every arm, plain too, the smallest of {bench.repeats} turns")
        print(f"  plain {plain.seconds:.1f} (each distinct plan run once a turn, counted once per device), "
              f"with memo {plain.once_seconds:.1f}")  # fmt: skip
        for mode, times in ours.items():
            over = {
                "over plain": plain.seconds / times.seconds,
                "over plain with memo": plain.once_seconds / times.seconds,
            }
            fast = ARMS[mode][0] == "fast"
            words = [f"{value:.1f}x {key} ({verdict(value, GRID_TARGETS[key][fast])})" for key, value in over.items()]
            print(f"  ours {mode:9s} {times.seconds:6.1f}   {'   '.join(words)}")
            print(f"    {mean_accuracies(times.accuracies, plain.accuracies)}")
            by_method = {n: sum(s for (m, _), s in times.tunings.items() if m == n) for n in methods}
            print("    tunings: " + ", ".join(f"{n} {s:.2f}" for n, s in by_method.items()))
            tuning = [s for (m, _), s in times.tunings.items() if m == "tinytrain" and s > 0.01]
            if tuning:
                selection, mean = times.fisher_seconds + times.decide_seconds / len(profiles), float(np.mean(tuning))
                print(
                    f"    selection: Fisher {times.fisher_seconds:.3f} + decisions {times.decide_seconds:.3f} of all; "
                    f"Fisher + one decision {100 * selection / mean:.1f} % of a tinytrain tuning ({mean:.2f} s)"
                    f"; target 5 {'reached' if selection < 0.05 * mean else 'MISSED'}"
                )


def _turn(
    bench: Workbench, episode: tuple[str, Episode], *, num_devices: int
) -> tuple[dict[str, GridTimes], PlainTimes]:
    """Run the grid once in every arm of ours, then the plain way with the plans that ours decided."""
    arms = {arm: partial(_our_grid, bench, episode, arm) for arm in ARMS}
    ours: dict[str, GridTimes] = {arm: grid for arm, (_, grid) in in_turn(arms, repeats=1).items()}
    first = ours["reference"]
    decided = {key: (first.plans[key], count) for key, count in first.counts.items()}
    return ours, plain_grid(bench.backbone, bench.task(episode), decided, num_devices=num_devices)


def mean_accuracies(ours: Mapping[tuple[str, str], float], plain: Mapping[tuple[str, str], float]) -> str:
    """Return the mean accuracy of an arm beside plain's, over the plans both tuned: in bf16 others may be chosen."""
    common = sorted(set(ours) & set(plain))
    if not common:
        return "accuracy: plain tuned none of its plans"
    mine, theirs = (100 * float(np.mean([found[key] for key in common])) for found in (ours, plain))
    return f"accuracy {mine:.2f} %, plain's {theirs:.2f} % (mean of {len(common)} plans, {len(ours)} tuned)"


def _our_grid(bench: Workbench, episode: tuple[str, Episode], arm: str) -> GridTimes:
    return our_grid(bench.task(episode, arm), devices(), known_methods())


def measure_macs_order(bench: Workbench) -> None:
    """Step time against counted MACs over random plans (Spearman; target 0.95)"""
    episode, rng = bench.episode(0), np.random.default_rng(1)
    task = bench.task(episode, "fast")
    macs, seconds = [], []
    for _ in range(RANDOM_PLANS):
        count = int(rng.integers(1, 8))
        layers = tuple(int(i) for i in rng.choice(len(bench.graph.layers), count, replace=False))
        plan = layers_plan(bench.graph, layers, ratio=float(rng.choice([1.0, 0.5, 0.25])), rng=rng)
        start = plan.earliest_layer
        assert start is not None
        forward = sum(layer.macs for layer in bench.graph.layers[start:])
        macs.append(forward + plan_macs(bench.graph, plan, chain="everything").backward)
        seconds.append(step_seconds(task, plan, repeats=max(3, bench.repeats)))
    order = float(spearmanr(macs, seconds).statistic)
    images = 2 * len(task.support_labels)
    rates = [images * m / s / 1e9 for m, s in zip(macs, seconds, strict=True)]
    print(f"  {order:.3f} ({verdict(order, 0.95)}); {min(rates):.1f} to {max(rates):.1f} GMAC/s")


class SameImages(EpisodeObjective):
    """Every step on the same states: no frozen layer runs in a timed step."""

    def __init__(self) -> None:
        self._states: list[LayerState] | None = None

    def states(self, task: TargetTask, *, cut: int, iteration: int) -> list[LayerState]:
        """Return the states of the first call."""
        self._states = self._states or super().states(task, cut=cut, iteration=iteration)
        return self._states


def step_seconds(task: TargetTask, plan: UpdatePlan, *, repeats: int) -> float:
    """Return the CPU seconds of one step above the cached prefix: forward, backward, optimizer."""
    tuning = Tuning(task, plan, SameImages())
    optimizer = make_optimizer(tuning.weights.values, task.settings)

    def step() -> None:
        _, tuning.weights.values.grad = tuning.step(0)
        optimizer.step()

    step()
    return min(cpu_seconds(step)[0] for _ in range(repeats))


def measure_float64(bench: Workbench) -> None:
    """Largest difference from plain in float64 after all steps, 5-way (target 1e-10, and equal accuracies)"""
    double = bench.doubled()
    episode = double.episode(0, settings=FIVE_WAY)
    for name, plan in {**double.plans, "tiny_tl": adapter_plan(double.graph)}.items():
        task = double.task(episode)
        plain, ours = plain_fine_tune(double.backbone, task, plan), fine_tune(task, plan)
        gap = float(np.abs(np.subtract(plain.losses, ours.losses)).max())
        same = plain.accuracy_after == ours.accuracy_after
        print(f"  {name:14s} losses {gap:.1e}, accuracy {'equal' if same else 'DIFFERENT'}"
              f" ({float64_verdict(gap, same_accuracy=same)})", flush=True)  # fmt: skip


def float64_verdict(gap: float, *, same_accuracy: bool) -> str:
    """Return whether a tuning equals the plain way's: its losses but for rounding, and its accuracy."""
    return "reached" if gap <= FLOAT64_GAP and same_accuracy else "MISSED"
