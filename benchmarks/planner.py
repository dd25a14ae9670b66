"""Ask what 1,000,000 cells would be on devices that were not run, and print the time beside its limit.

Run: ``python benchmarks/planner.py [--cells N] [--json]``. A run is written first (untimed): tasks of varied size,
four methods, two devices with prices of the real model, plans of TinyTrain's that differ from task to task. Timed is
what ``tinytrain plan --what-if device=...`` does: open the run, find the stored row of every cell, price it on every
shipped profile, and make the table of what fits. Exit code 1 when the limit is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.costs.fit import device_budget
from tinytrain_dist.costs.plan_arrays import plan_arrays
from tinytrain_dist.costs.price_table import price_table
from tinytrain_dist.costs.profile_files import load_profile, load_profiles
from tinytrain_dist.costs.static_plans import static_plan
from tinytrain_dist.costs.workload import Workload
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, num_selected, plan_to_json
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.what_if import what_if
from tinytrain_dist.reporting.what_if_cells import Target
from tinytrain_dist.simulation.schema import COLUMNS, result_schema

LIMIT_S = 5.0
BACKBONE, RESOLUTION, ITERATIONS, WAY = "mcunet", 84, 40, 5
METHODS = ("none", "last_layer", "full_train", "tinytrain")
STORED_DEVICES = ("stm32h747", "raspberry_pi_4b")
NUM_PLANS = 200
INSPECT_BLOCKS = 6


def write_run(folder: Path, num_tasks: int) -> None:
    """Write a run of ``num_tasks`` tasks whose stored prices are those of the real model.

    On every device TinyTrain chose one and the same plan for a task, under a budget without an end below: so any
    device's budget is settled without choosing again, which is what is not measured here.
    """
    graph = layer_graph(BACKBONE, RESOLUTION)
    random = np.random.default_rng(0)
    support = random.integers(5, 500, num_tasks)
    accuracy = random.normal(0.6, 0.1, num_tasks).clip(0, 1)
    plans = _plans(random)
    which = random.integers(0, NUM_PLANS, num_tasks)
    (folder / "results").mkdir(parents=True)
    (folder / "plans").mkdir()
    stored = [*plans, *(static_plan(name, graph).plan for name in METHODS[1:3])]
    pq.write_table(pa.table({"plan_hash": [p.hash for p in stored], "plan": [plan_to_json(p) for p in stored]}),
                   folder / "plans" / "p.parquet")  # fmt: skip
    for method in METHODS:
        chosen = plans if method == "tinytrain" else [static_plan(method, graph).plan]
        place = which if method == "tinytrain" else np.zeros(num_tasks, np.int64)
        for name in STORED_DEVICES:
            table = _rows(method, name, chosen, place, support, accuracy)
            pq.write_table(table, folder / "results" / f"{method}-{name}.parquet")
    identity = {
        "finetune": {"iterations": ITERATIONS, "optimizer": "adam"},
        "selection": {"inspect_blocks": INSPECT_BLOCKS, "criterion": "full"},
    }
    devices = {name: load_profile(name).hash for name in STORED_DEVICES}
    record = {"run_id": "benchmark", "identity": identity, "grid": {"devices": devices}}
    (folder / "run.json").write_text(json.dumps(record))


def _plans(random: np.random.Generator) -> list[UpdatePlan]:
    graph = layer_graph(BACKBONE, RESOLUTION)
    inspected = np.array(graph.last_blocks(INSPECT_BLOCKS))
    plans = []
    for _ in range(NUM_PLANS):
        layers = np.sort(random.choice(inspected, size=random.integers(1, 4), replace=False))
        updates = tuple(
            LayerUpdate(layer=int(i), channels=tuple(range(max(1, graph.layer(int(i)).out_channels // 2))))
            for i in layers
        )
        plans.append(UpdatePlan(backbone=BACKBONE, updates=updates))
    return plans


def _rows(method: str, device: str, plans: list[UpdatePlan], which: Any, support: Any, accuracy: Any) -> pa.Table:
    graph, profile, num = layer_graph(BACKBONE, RESOLUTION), load_profile(device), len(support)
    budgeted = method == "tinytrain"
    workload = Workload(
        support_size=1, iterations=ITERATIONS, way=WAY, full=method == "full_train",
        inspected=graph.last_blocks(INSPECT_BLOCKS) if budgeted else (),
    )  # fmt: skip
    iterations = np.full(num, 0 if method == "none" else ITERATIONS)
    cells = {"plan": which, "device": np.zeros(num, np.int64), "support_size": support, "iterations": iterations}
    prices = price_table(graph, cells, plans=plan_arrays(graph, plans), profiles=[profile], workload=workload)
    columns: dict[str, Any] = {name: pa.array(values, from_pandas=True) for name, values in prices.items()}
    layers = [[u.layer for u in plan.updates] for plan in plans]
    channels = [[num_selected(u, graph.layer(u.layer)) for u in plan.updates] for plan in plans]
    text = {
        "checkpoint": "c0ffee", "method": method, "variant": f"{method}-1", "device": device, "backbone": BACKBONE,
        "initialization": "pretrained", "split": "test", "plan_status": "ok" if budgeted else "not_applicable",
        "status": "ok", "signature": "", "mode": "reference", "accuracy_numerics": "fp32",
    }  # fmt: skip
    columns |= {name: pa.array([value] * num) for name, value in text.items()}
    numbers = {
        "resolution": RESOLUTION, "way": WAY, "query_size": 50, "updated_weights": 1, "seed": 0, "attempt": 1,
        "host_ms": 1.0, "loss_first": 1.0, "loss_last": 0.5,
    }  # fmt: skip
    columns |= {name: pa.array([value] * num) for name, value in numbers.items()}
    columns |= {
        "task_id": [f"domain{i % 10}/test/md/s0/{i}" for i in range(num)],
        "domain": [f"domain{i % 10}" for i in range(num)],
        "task_index": list(range(num)), "shots": [[int(s) // WAY] * WAY for s in support], "support_size": support,
        "plan_hash": [None if plans[p].is_empty else plans[p].hash for p in which],
        "plan_layers": [layers[p] for p in which], "plan_channels": [channels[p] for p in which],
        "accuracy_before": accuracy, "accuracy_after": accuracy, "iterations": iterations,
    }  # fmt: skip
    if budgeted:
        budget = device_budget(graph, profile)
        columns |= {
            "budget_memory_bytes": [2**40] * num, "budget_backward_macs": [budget.backward_macs] * num,
        }  # fmt: skip
    schema = result_schema()
    arrays = [
        pa.array(columns.get(c.name, [None] * num), from_pandas=True).cast(schema.field(c.name).type) for c in COLUMNS
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def measure(num_cells: int) -> dict[str, float]:
    """Return seconds from the run directory to the what-if's table, and the peak bytes of the process."""
    profiles = load_profiles()
    num_tasks = 1 + num_cells // (len(METHODS) * len(profiles) - 2)  # some tinytrain plans do not fit some devices
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "run", num_tasks)
        start, cpu = time.perf_counter(), time.process_time()
        run = open_run(Path(folder) / "run")
        opened = time.perf_counter() - start
        targets = [Target(profile=profile, label=profile.name, device=profile.name) for profile in profiles]
        found = what_if(run, targets)
        priced = time.perf_counter() - start
        rows = comparison_table(found.run)
        total, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert len({row.device for row in rows}) == len(profiles)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "cells": found.num_cells, "tasks": num_tasks, "devices": len(profiles),
        "needs_tuning": sum(found.needs_tuning.values()), "total_s": total, "open_s": opened,
        "price_s": priced - opened, "table_s": total - priced, "cpu_s": cpu, "peak_bytes": peak,
    }  # fmt: skip


def main() -> int:
    """Print the figures; return 1 when the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.cells)
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{found['cells']:,} cells: {found['tasks']:,} tasks, {len(METHODS)} methods, {found['devices']} devices"
              f"; {found['needs_tuning']:,} more would need tuning")  # fmt: skip
        print(f"what-if       {found['total_s']:6.2f} s     limit {LIMIT_S:.0f} s (open {found['open_s']:.2f}, "
              f"price {found['price_s']:.2f}, table {found['table_s']:.2f}; CPU {found['cpu_s']:.2f})")  # fmt: skip
        print(f"peak memory   {found['peak_bytes'] / 2**20:6.0f} MiB")
    return 0 if found["total_s"] < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
