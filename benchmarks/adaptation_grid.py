"""The grid of the adaptation benchmark: methods x devices on one task, as the plain way and as ours run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from benchmarks.plain_adaptation import plain_fine_tune, plain_fisher
from tinytrain_dist.adaptation.fisher import FisherInformation, fisher_information
from tinytrain_dist.adaptation.methods import METHODS, PlanQuestion
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.settings import SelectionSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.adaptation.weight_norms import channel_norms, weight_norm
from tinytrain_dist.backbones.network import Backbone
from tinytrain_dist.costs.pricing import device_budget, plan_memory_bytes
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.graphs.update_plan import UpdatePlan

GRID_METHODS = ("last_layer", "tiny_tl", "sparse_update", "tinytrain", "full_train")
GRID_DEVICES = (
    "nrf52840", "rp2040", "stm32f746", "stm32h743", "stm32l4r5", "stm32u575", "stm32h747", "stm32h7a3",
    "raspberry_pi_zero_2", "raspberry_pi_3b_plus", "jetson_nano", "raspberry_pi_5",
)  # fmt: skip
"""Twelve devices, no two with the same memory budget."""
SELECTION = SelectionSettings()


@dataclass
class GridTimes:
    """CPU seconds of one task's grid.

    Attributes
    ----------
    seconds
        Whole grid.
    fisher_seconds, decide_seconds
        Share of the Fisher pass and of the decisions of all devices.
    tunings
        Seconds by (method, plan hash); the plain way makes each of them once per device in ``counts``.
    accuracies
        Accuracy after, by (method, plan hash); none of a tuning that diverged.
    plans
        The plans behind the hashes.
    """

    seconds: float = 0.0
    fisher_seconds: float = 0.0
    decide_seconds: float = 0.0
    tunings: dict[tuple[str, str], float] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    accuracies: dict[tuple[str, str], float] = field(default_factory=dict)
    plans: dict[tuple[str, str], UpdatePlan] = field(default_factory=dict)


@dataclass
class PlainTimes:
    """CPU seconds of one task's plain grid, with identical plans tuned once, and accuracies as in ``GridTimes``."""

    seconds: float
    once_seconds: float
    accuracies: dict[tuple[str, str], float] = field(default_factory=dict)


def known_methods() -> tuple[str, ...]:
    """Return the methods of the grid that exist."""
    return tuple(name for name in GRID_METHODS if name in METHODS)


def devices() -> tuple[DeviceProfile, ...]:
    """Return the profiles of the grid."""
    return tuple(load_profile(name) for name in GRID_DEVICES)


def question_of(task: TargetTask, device: DeviceProfile, fisher: Callable[[], FisherInformation]) -> PlanQuestion:
    """Return what a method is asked for one device: the device's own budget, counted by its own rule."""
    graph = task.network.graph
    rule = partial(plan_memory_bytes, way=task.way, inspected=graph.last_blocks(SELECTION.inspect_blocks))
    return PlanQuestion(
        graph=graph,
        task_id=task.task_id,
        settings=SELECTION,
        budget=device_budget(graph, device, memory_bytes=None, compute_share=SELECTION.compute_share),
        memory_of=lambda plan: rule(graph, plan, device),
        fisher=fisher,
        weight_norm=partial(weight_norm, task.network),
        channel_norms=partial(channel_norms, task.network),
    )


def warm_up(task: TargetTask) -> None:
    """Make a Fisher pass that is not counted: a process loads kernels at its first one, for all its tasks."""
    fisher_information(task, task.network.graph.last_blocks(SELECTION.inspect_blocks))


def our_grid(task: TargetTask, profiles: Sequence[DeviceProfile], methods: Sequence[str]) -> GridTimes:
    """Run the grid as the platform does: one Fisher pass, each distinct plan tuned once on the shared prefix."""
    times, start = GridTimes(), time.process_time()
    kept: list[FisherInformation] = []

    def fisher() -> FisherInformation:
        if not kept:
            begin = time.process_time()
            kept.append(fisher_information(task, task.network.graph.last_blocks(SELECTION.inspect_blocks)))
            times.fisher_seconds = time.process_time() - begin
        return kept[0]

    for name in methods:
        shared: Decision | None = None
        for device in profiles:
            begin, before = time.process_time(), times.fisher_seconds
            if METHODS[name].has_budget or shared is None:
                shared = METHODS[name].decide(question_of(task, device, fisher))
            times.decide_seconds += time.process_time() - begin - (times.fisher_seconds - before)
            key = (name, shared.plan.hash)
            times.plans[key] = shared.plan
            times.counts[key] = times.counts.get(key, 0) + 1
            if key not in times.tunings:
                begin = time.process_time()
                outcome = METHODS[name].adapt(task, shared.plan)
                times.tunings[key] = time.process_time() - begin
                if outcome.accuracy_after is not None:
                    times.accuracies[key] = outcome.accuracy_after
    times.seconds = time.process_time() - start
    return times


def plain_grid(
    backbone: Backbone, task: TargetTask, decided: dict[tuple[str, str], tuple[UpdatePlan, int]], *, num_devices: int
) -> PlainTimes:
    """Run the plain grid.

    Every distinct plan is run once; the plain way runs it for each device that chose it, and Fisher for each device:
    those are multiplied, not run again.
    """
    inspected = task.network.graph.last_blocks(SELECTION.inspect_blocks)
    begin = time.process_time()
    plain_fisher(backbone, task, inspected)
    fisher = time.process_time() - begin
    times = PlainTimes(fisher * num_devices, fisher)
    for key, (plan, count) in decided.items():
        if plan.is_empty:
            continue
        begin = time.process_time()
        outcome = plain_fine_tune(backbone, task, plan)
        seconds = time.process_time() - begin
        times.seconds, times.once_seconds = times.seconds + count * seconds, times.once_seconds + seconds
        if outcome.accuracy_after is not None:
            times.accuracies[key] = outcome.accuracy_after
    return times
