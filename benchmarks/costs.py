"""Price 1,000,000 (plan, device) cells and print time and peak memory beside their limits.

Run: ``python benchmarks/costs.py [--cells N] [--json]``. One core: no operation here starts a thread. Exit code 1
when a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from tinytrain_dist.costs.plan_arrays import PlanArrays, plan_arrays
from tinytrain_dist.costs.price_table import price_table
from tinytrain_dist.costs.pricing import Workload, price
from tinytrain_dist.costs.profile_files import load_profiles
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan

LIMIT_S = 10.0
LIMIT_BYTES = 2**30
LIMIT_DEVICES_LIST_S = 0.7
BACKBONE = "mcunet"


def random_plans(graph: LayerGraph, num_plans: int) -> list[UpdatePlan]:
    """Return plans of one to six layers of the last half, of one of the studied channel ratios."""
    random = np.random.default_rng(0)
    half = np.arange(len(graph.layers) // 2, len(graph.layers))
    plans = []
    for _ in range(num_plans):
        layers = np.sort(random.choice(half, size=random.integers(1, 7), replace=False))
        ratio = random.choice([0.125, 0.25, 0.5, 1.0])
        updates = tuple(
            LayerUpdate(layer=int(i), channels=tuple(range(max(1, int(ratio * graph.layer(i).out_channels)))))
            for i in layers
        )
        plans.append(UpdatePlan(backbone=graph.name, updates=updates))
    return plans


def measure(num_cells: int) -> dict[str, float]:
    """Return seconds and peak bytes of pricing ``num_cells`` cells in this process, and of one cell priced alone."""
    graph, profiles = layer_graph(BACKBONE), load_profiles()
    plans = random_plans(graph, -(-num_cells // len(profiles)))
    cells = np.arange(num_cells)
    workload = Workload(support_size=25, iterations=40, inspected=graph.last_blocks(6))
    start, busy = time.perf_counter(), time.process_time()
    arrays: PlanArrays = plan_arrays(graph, plans)
    prepared = time.perf_counter() - start
    table = price_table(
        graph, {"plan": cells // len(profiles), "device": cells % len(profiles)}, plans=arrays, profiles=profiles,
        workload=workload,
    )  # fmt: skip
    total, busy = time.perf_counter() - start, time.process_time() - busy
    place = num_cells // 2
    start = time.perf_counter()
    single = price(graph, plans[place // len(profiles)], profiles[place % len(profiles)], workload)
    alone = time.perf_counter() - start
    assert single.peak_bytes == table["peak_bytes"][place]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "cells": num_cells, "plans": len(plans), "devices": len(profiles), "total_s": total, "processor_s": busy,
        "matrices_s": prepared,
        "peak_bytes": peak, "single_cell_s": alone,
    }  # fmt: skip


def devices_list_s() -> float:
    """Return the best of five starts of ``tinytrain devices list``."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        command = [sys.executable, "-m", "tinytrain_dist", "devices", "list"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    """Print the figures; return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.cells)
    found["devices_list_s"] = devices_list_s()
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{found['cells']:,} cells = {found['plans']:,} plans x {found['devices']} devices, {BACKBONE}, one core")
        print(f"time          {found['total_s']:6.2f} s     limit {LIMIT_S:.0f} s "
              f"(plans to matrices {found['matrices_s']:.2f} s; processor {found['processor_s']:.2f} s)")  # fmt: skip
        print(
            f"peak memory   {found['peak_bytes'] / 2**20:6.0f} MiB   limit {LIMIT_BYTES / 2**20:.0f} MiB (the process)"
        )
        alone = found["single_cell_s"]
        print(f"one by one    {alone * found['cells'] / 60:6.1f} min   (one cell {1e3 * alone:.2f} ms)")
        print(f"devices list  {found['devices_list_s']:6.2f} s     limit {LIMIT_DEVICES_LIST_S} s (best of 5)")
    ok = found["total_s"] < LIMIT_S and found["peak_bytes"] < LIMIT_BYTES
    return 0 if ok and found["devices_list_s"] < LIMIT_DEVICES_LIST_S else 1


if __name__ == "__main__":
    sys.exit(main())
