"""Tunings per second on a GPU and on this machine's CPU, by tasks in flight.

So many processes share the device; on a GPU each of them tunes one task at a time, or several step by step together.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.adaptation_tasks import Workbench
from tinytrain_dist.adaptation.fine_tuning import EpisodeObjective
from tinytrain_dist.adaptation.joint_tuning import fine_tune_together
from tinytrain_dist.adaptation.numerics import best_numerics, gpu_has_bf16
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.flat_state import flat_to_state, state_to_flat
from tinytrain_dist.backbones.head import SCALE_DEFAULT
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.backbones.torch_device import torch_device
from tinytrain_dist.data.episodes import Episode
from tinytrain_dist.execution.threads import keep_freed_memory, use_one_thread
from tinytrain_dist.graphs.update_plan import UpdatePlan

IN_FLIGHT = (1, 2, 4, 8, 16)
TOGETHER = (1, 4, 8)
"""Tasks of one process that make their steps together."""
PLANS = ("last_layer", "3 layers 50 %", "full_train")
NO_GPU = f"no GPU: torch {torch.__version__} sees none here; nothing was measured"
WAIT_S = 300.0
MOST_PROCESSES = 4
"""Of those that tune several tasks together."""
_start: Any = None


@dataclass(frozen=True, kw_only=True)
class Load:
    """What every process tunes: ``num_tasks`` tasks of its own, after some that warm it up."""

    weights: NDArray[np.float32]
    resolution: int
    settings: FineTuneSettings
    plan: UpdatePlan
    num_tasks: int


@dataclass(frozen=True)
class Rate:
    """Tunings per second of all processes together, and the mean query accuracy after them."""

    tasks_per_second: float
    accuracy: float


def measure_gpu(bench: Workbench) -> None:
    """Tunings per second in mode fast by tasks in flight: this CPU, and the GPU where there is one"""
    if not torch.cuda.is_available():
        print(f"  {NO_GPU}")
        return
    cores = len(os.sched_getaffinity(0))
    print(f"  {torch.cuda.get_device_name()}; {cores} cores; {bench.num_tasks} tasks of each process")
    fast = FineTuneSettings(iterations=bench.iterations, mode="fast")
    on_gpu = {"cuda fp32": replace(fast, device="cuda")}
    if gpu_has_bf16():
        on_gpu["cuda bf16"] = replace(fast, device="cuda", numerics="bf16")
    for name in PLANS:
        print(f"  {name}")
        on_cpu = replace(fast, numerics=best_numerics())  # as `auto` decides
        best_on_cpu = _say(f"cpu {on_cpu.numerics}", _rates(bench, name, on_cpu, tuple(sorted({1, cores}))))
        for arm, settings in on_gpu.items():
            for together in TOGETHER:
                processes = tuple(count for count in IN_FLIGHT if together == 1 or count <= MOST_PROCESSES)
                rates = _rates(bench, name, replace(settings, tasks_together=together), processes)
                best = _say(f"{arm}, {together} together", rates)
                print(f"      {best / best_on_cpu:.2f}x this CPU's {best_on_cpu:.2f} tasks/s", flush=True)


def _rates(bench: Workbench, plan: str, settings: FineTuneSettings, processes: tuple[int, ...]) -> dict[int, Rate]:
    load = Load(
        weights=state_to_flat(bench.backbone), resolution=bench.graph.resolution, settings=settings,
        plan=bench.plans[plan], num_tasks=bench.num_tasks,
    )  # fmt: skip
    return {count: rate_of(load, processes=count) for count in processes}


def _say(arm: str, rates: dict[int, Rate]) -> float:
    """Print an arm's rates and which number of tasks in flight is the best; return that rate."""
    best = max(rates, key=lambda count: rates[count].tasks_per_second)
    words = ", ".join(f"{count}: {rate.tasks_per_second:.2f}" for count, rate in rates.items())
    print(f"    {arm}: tasks/s by processes {words}; best {best}; accuracy {100 * rates[best].accuracy:.1f} %")
    return rates[best].tasks_per_second


def rate_of(load: Load, *, processes: int) -> Rate:
    """Return the rate of so many processes, from the moment at which all of them are warm."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=_remember, initargs=(spawn.Barrier(processes),)) as pool:
        found = list(pool.map(_tune, [load] * processes, range(processes)))
    seconds = max(end for _, end, _ in found) - min(begin for begin, _, _ in found)
    accuracy = float(np.mean([accuracy for *_, accuracies in found for accuracy in accuracies]))
    return Rate(processes * load.num_tasks / seconds, accuracy)


def _remember(start: Any) -> None:
    global _start
    _start = start


def _tune(load: Load, number: int) -> tuple[float, float, list[float]]:
    """Tune the tasks of one process; return when it began and ended, and the accuracies."""
    use_one_thread()
    keep_freed_memory()
    backbone = build_backbone("mcunet", resolution=load.resolution)
    flat_to_state(backbone, load.weights)
    bench = Workbench(
        backbone.to(torch_device(load.settings.device)), num_tasks=load.num_tasks, repeats=1,
        iterations=load.settings.iterations,
    )  # fmt: skip
    episodes = [bench.episode(number * load.num_tasks + index) for index in range(load.num_tasks)]

    together = load.settings.num_together

    def accuracies(part: list[tuple[str, Episode]]) -> list[float]:
        tasks = [
            TargetTask(task_id, episode=episode, network=bench.network, settings=load.settings, scale=SCALE_DEFAULT)
            for task_id, episode in part
        ]
        found = fine_tune_together(tasks, [load.plan] * len(tasks), objective=EpisodeObjective())
        return [outcome.accuracy_after or 0.0 for outcome in found]

    parts = [episodes[start : start + together] for start in range(0, len(episodes), together)]
    accuracies(parts[0])
    _start.wait(WAIT_S)
    begin = time.monotonic()
    reached = [value for part in parts for value in accuracies(part)]
    return begin, time.monotonic(), reached
