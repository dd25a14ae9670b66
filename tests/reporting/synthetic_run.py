"""A factory of synthetic runs: result rows with the real schema, and the run.json beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.simulation.schema import COLUMNS, result_schema

Row = dict[str, Any]
METHODS = ("raw_pixels", "none", "last_layer", "full_train", "tinytrain")
GAINS = {"raw_pixels": -0.30, "none": 0.0, "last_layer": 0.03, "full_train": 0.10, "tinytrain": 0.09}
MACS = {"none": 0.1, "last_layer": 0.2, "full_train": 3.0, "tinytrain": 0.5}


def result_row(**values: Any) -> Row:
    """Return a complete, finished row; ``values`` replace its cells."""
    defaults: Row = {
        "task_id": "signs/test/fixed-5w5s10q/s0/0", "checkpoint": "c0ffee", "method": "none", "variant": "v-1",
        "device": "stm32f746", "backbone": "mcunet", "initialization": "meta_trained", "resolution": 128,
        "domain": "signs", "split": "test", "task_index": 0, "way": 5, "shots": [5] * 5, "support_size": 25,
        "query_size": 50, "plan_status": "not_applicable", "accuracy_before": 0.5, "accuracy_after": 0.5,
        "iterations": 40, "status": "ok", "signature": "", "mode": "reference", "accuracy_numerics": "fp32",
        "price_numerics": "int8", "batch": 1, "fit_counter": "paper_memory", "peak_bytes": 200_000,
        "latency_ms": 1000.0, "latency_low_ms": 500.0, "latency_high_ms": 2000.0, "energy_mj": 300.0,
        "energy_low_mj": 150.0, "energy_high_mj": 600.0, "fits": "yes", "standing": "estimate", "seed": 0,
        "attempt": 1, "host_ms": 20.0,
    }  # fmt: skip
    return {column.name: None for column in COLUMNS} | defaults | values


def failed_row(status: str = "error", message: str = "boom", **values: Any) -> Row:
    """Return a row of a task that failed: no accuracy, no price."""
    empty: Row = dict.fromkeys(
        ("accuracy_before", "accuracy_after", "batch", "fit_counter", "peak_bytes", "latency_ms", "latency_low_ms",
         "latency_high_ms", "energy_mj", "energy_low_mj", "energy_high_mj", "fits", "standing")
    )  # fmt: skip
    return result_row(**(empty | {"status": status, "message": message} | values))


def grid_rows(
    *,
    num_tasks: int = 8,
    devices: Iterable[str] = ("stm32f746", "raspberry-pi-zero-2"),
    methods: Iterable[str] = METHODS,
    domains: Iterable[str] = ("signs", "glyphs"),
) -> list[Row]:
    """Return rows of every (task, method, device); tasks are spread over the domains."""
    random, names, rows = np.random.default_rng(7), list(domains), []
    for index in range(num_tasks):
        before = float(np.clip(random.normal(0.6, 0.1), 0, 1))
        for method in methods:
            after = float(np.clip(before + GAINS.get(method, 0.02) + random.normal(0, 0.03), 0, 1))
            after = before if method == "none" else after
            for place, device in enumerate(devices):
                rows.append(_grid_row(index, names[index % len(names)], method, device, place, before, after))
    return rows


def _grid_row(index: int, domain: str, method: str, device: str, place: int, before: float, after: float) -> Row:
    scale = MACS.get(method, 1.0) * (1 + place) * (1 + 0.02 * index)
    price: Row = {
        "latency_ms": 4000.0 * scale, "latency_low_ms": 2000.0 * scale, "latency_high_ms": 8000.0 * scale,
        "energy_mj": 1200.0 * scale, "energy_low_mj": 600.0 * scale, "energy_high_mj": 2400.0 * scale,
        "peak_bytes": int(300_000 * scale), "fits": "yes" if method != "full_train" or place > 0 else "no",
    }  # fmt: skip
    if method == "raw_pixels":
        price = dict.fromkeys(price) | {"fits": "yes", "batch": None, "fit_counter": None, "standing": None}
    return result_row(
        task_id=f"{domain}/test/fixed-5w5s10q/s0/{index}", task_index=index, domain=domain, method=method,
        device=device, variant=f"{method}-1", accuracy_before=before, accuracy_after=after,
        plan_status="ok" if method == "tinytrain" else "not_applicable",
        price_numerics="int8" if device.startswith("stm32") else "fp32", **price,
    )  # fmt: skip


def write_run(folder: Path, rows: list[Row], *, num_files: int = 1, **record: Any) -> Path:
    """Write a run directory with ``rows`` cut into ``num_files`` Parquet files."""
    results = folder / "results"
    results.mkdir(parents=True)
    for part in range(num_files):
        table = pa.Table.from_pylist(rows[part::num_files], schema=result_schema())
        pq.write_table(table, results / f"part-{part}.parquet")
    document = {
        "run_id": "quickstart-1", "status": "done", "created": "2026-03-01T12:00:00Z", "exit_code": 0,
        "config": {"experiment": "quickstart", "backbone": "mcunet", "seed": 0, "devices": ["stm32f746"]},
        "versions": {"tinytrain_dist": "0.1.0", "torch": "2.13.0"}, "identity": {"data_hash": "ab12cd"},
        "command": "tinytrain simulate experiment=quickstart",
    } | record  # fmt: skip
    (folder / "run.json").write_text(json.dumps(document))
    return folder
