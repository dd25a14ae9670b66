"""Synthetic runs that have everything a page draws: phases, plans, learning curves, Fisher potentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic_run import Row, failed_row, grid_rows, result_row

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
LAYERS = {"full_train": list(range(42)), "last_layer": [41], "tinytrain": [38, 40, 41]}
ITERATIONS = 40


def page_rows(**grid: Any) -> list[Row]:
    """Rows of a grid on mcunet (42 layers, the last with 320 channels) whose phases and plans are known."""
    rows = grid_rows(**grid)
    for row in rows:
        if row["method"] == "raw_pixels":
            continue
        trained = row["method"] in LAYERS
        parts = {"load": 0.05, "selection": 0.15 if row["method"] == "tinytrain" else 0.0, "swap": 0.0}
        parts["training"] = 1 - sum(parts.values())
        row |= {f"{name}_ms": part * row["latency_ms"] for name, part in parts.items()}
        row |= {f"{name}_mj": part * row["energy_mj"] for name, part in parts.items()}
        row["iterations"] = ITERATIONS if trained else 0
        if trained:
            layers = LAYERS[row["method"]]
            row |= {"plan_layers": layers, "plan_channels": [4] * len(layers), "plan_hash": f"plan-{row['method']}"}
    return rows


def hostile_rows() -> list[Row]:
    """A grid with a device, method, domain, message and reason that try to run code."""
    rows = page_rows(num_tasks=4)
    extra = {"device": HOSTILE, "domain": HOSTILE}
    for index in range(4):
        rows.append(result_row(task_id=f"{HOSTILE}{index}", task_index=index, **extra))
        rows.append(result_row(task_id=f"{HOSTILE}{index}", task_index=index, method=HOSTILE, variant=HOSTILE, **extra))
    rows.append(failed_row(task_id="bad", message=HOSTILE, **extra))
    return rows


def write_side_files(folder: Path, rows: list[Row]) -> None:
    """Write ``curves/`` and ``fisher/`` of a run directory: one file per task, as small chunks leave them."""
    random = np.random.default_rng(3)
    for number, task in enumerate(sorted({row["task_id"] for row in rows})):
        here = [row for row in rows if row["task_id"] == task and row["plan_hash"]]
        plans = {(row["method"], row["variant"], row["plan_hash"]): row for row in here}
        curves = [
            {"task_id": task, "checkpoint": row["checkpoint"], "method": method, "variant": variant,
             "plan_hash": plan, "iteration": step, "loss": 1.0,
             "accuracy": row["accuracy_before"] + (row["accuracy_after"] - row["accuracy_before"]) * step / ITERATIONS}
            for (method, variant, plan), row in plans.items()
            for step in (20, ITERATIONS)
        ]  # fmt: skip
        fisher = [
            {"task_id": task, "checkpoint": "c0ffee", "layer": layer, "potential": float(random.exponential() * 1e-6),
             "delta": [1e-9] * 4}
            for layer in range(36, 42)
        ]  # fmt: skip
        for name, values in (("curves", curves), ("fisher", fisher)):
            (folder / name).mkdir(exist_ok=True)
            if values:
                pq.write_table(pa.Table.from_pylist(values), folder / name / f"{number:04d}.parquet")
