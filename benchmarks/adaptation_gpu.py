"""Tunings per second on a GPU and on this machine's CPU, by tasks in flight: so many processes share the device."""

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
from tinytrain_dist.adaptation.fine_tuning import fine_tune
from tinytrain_dist.adaptation.numerics import best_numerics, gpu_has_bf16
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.flat_state import flat_to_state, state_to_flat
from tinytrain_dist.backbones.head import SCALE_DEFAULT
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.backbones.torch_device import torch_device
from tinytrain_dist.execution.threads import keep_freed_memory, use_one_thread
from tinytrain_dist.graphs.update_plan import UpdatePlan

IN_FLIGHT = (1, 2, 4, 8, 16)
PLANS = ("last_layer", "3 layers 50 %", "full_train")
NO_GPU = f"no GPU: torch {torch.__version__} sees none here; nothing was measured"
WAIT_S = 300.0
_start: Any = None


@dataclass(frozen=True, kw_only=True)
class Load:
    """What every process tunes: ``num_tasks`` tasks of its own, after one that warms it up."""

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
            best = _say(arm, _rates(bench, name, settings, IN_FLIGHT))
            print(f"      {best / best_on_cpu:.2f}x this CPU's {best_on_cpu:.2f} tasks/s", flush=True)


def _rates(bench: Workbench, plan: str, settings: FineTuneSettings, in_flight: tuple[int, ...]) -> dict[int, Rate]:
    load = Load(
        weights=state_to_flat(bench.backbone), resolution=bench.graph.resolution, settings=settings,
        plan=bench.plans[plan], num_tasks=bench.num_tasks,
    )  # fmt: skip
    return {count: rate_of(load, in_flight=count) for count in in_flight}


def _say(arm: str, rates: dict[int, Rate]) -> float:
    """Print an arm's rates and which number of tasks in flight is the best; return that rate."""
    best = max(rates, key=lambda count: rates[count].tasks_per_second)
    words = ", ".join(f"{count}: {rate.tasks_per_second:.2f}" for count, rate in rates.items())
    print(f"    {arm}: tasks/s by tasks in flight {words}; best {best}; accuracy {100 * rates[best].accuracy:.1f} %")
    return rates[best].tasks_per_second


def rate_of(load: Load, *, in_flight: int) -> Rate:
    """Return the rate of so many processes, from the moment at which all of them are warm."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(in_flight, spawn, initializer=_remember, initargs=(spawn.Barrier(in_flight),)) as pool:
        found = list(pool.map(_tune, [load] * in_flight, range(in_flight)))
    seconds = max(end for _, end, _ in found) - min(begin for begin, _, _ in found)
    accuracy = float(np.mean([accuracy for *_, accuracies in found for accuracy in accuracies]))
    return Rate(in_flight * load.num_tasks / seconds, accuracy)


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

    def accuracy(index: int) -> float:
        task_id, episode = episodes[index]
        task = TargetTask(
            task_id, episode=episode, network=bench.network, settings=load.settings, scale=SCALE_DEFAULT
        )  # fmt: skip
        return fine_tune(task, load.plan).accuracy_after or 0.0

    accuracy(0)
    _start.wait(WAIT_S)
    begin = time.monotonic()
    accuracies = [accuracy(index) for index in range(load.num_tasks)]
    return begin, time.monotonic(), accuracies
