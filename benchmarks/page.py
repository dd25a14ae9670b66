"""Write the page of a synthetic run of 100,000 tasks and print its size and its time in a browser beside the limits.

Run: ``python -m benchmarks.page [--tasks N] [--devices N] [--json]``. Exit code 1 when a limit is missed. Without a
Chromium (``CHROMIUM`` or on the PATH) only the size is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.reporting.page import write_page
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.simulation.schema import result_schema

LIMIT_BYTES = 8 * 2**20
LIMIT_INTERACTIVE_S = 2.0
DOMAINS = ("clipart", "fashion", "flags", "glyphs", "signs")
GAINS = {"raw_pixels": -0.2, "none": 0.0, "last_layer": 0.02, "full_train": 0.08, "tinytrain": 0.05}
STEPS = (10, 20, 30, 40)
OPENINGS = 5


def write_run(folder: Path, *, num_tasks: int, num_devices: int) -> int:
    """Write a run of every (task, method, device), one column at a time; returns its number of rows."""
    random, graph = np.random.default_rng(0), layer_graph("mcunet", 84)
    before = random.beta(6, 5, num_tasks)
    for name in ("results", "curves", "fisher"):
        (folder / name).mkdir(parents=True)
    tasks = pa.array(np.char.add(np.char.add(np.resize(DOMAINS, num_tasks), "/"), np.arange(num_tasks).astype(str)))
    domains = pa.array(np.resize(DOMAINS, num_tasks))
    for method, gain in GAINS.items():
        for device in range(num_devices):
            after = np.clip(before + gain + random.normal(0, 0.05, num_tasks), 0, 1)
            table = _rows(graph, tasks, domains, before, after, method, device, random)
            pq.write_table(table, folder / "results" / f"{method}-{device}.parquet")
        if method in ("last_layer", "full_train", "tinytrain"):
            pq.write_table(_curves(tasks, before, after, method), folder / "curves" / f"{method}.parquet")
    pq.write_table(_fisher(graph, tasks, random), folder / "fisher" / "all.parquet")
    record = {"run_id": f"synthetic-{num_tasks}", "status": "finished", "config": {}, "identity": {}, "versions": {}}
    (folder / "run.json").write_text(json.dumps(record))
    return num_tasks * num_devices * len(GAINS)


def _rows(
    graph: LayerGraph,
    tasks: pa.Array,
    domains: pa.Array,
    before: Any,
    after: Any,
    method: str,
    device: int,
    random: Any,
) -> pa.Table:
    """Return the rows of one method on one device."""
    num, trained = len(tasks), method in ("last_layer", "full_train", "tinytrain")
    latency = 10.0 ** (2 + device / 3) * (30 if trained else 1) * random.lognormal(0, 0.1, num)
    layers = {"last_layer": [41], "full_train": list(range(42)), "tinytrain": [30 + device % 4, 36, 38, 41]}.get(method)
    priced = {
        "load_ms": 0.02 * latency, "selection_ms": 0.05 * latency, "training_ms": 0.93 * latency,
        "swap_ms": 0.0 * latency, "latency_ms": latency, "latency_low_ms": latency / 2, "latency_high_ms": 2 * latency,
        "peak_bytes": (3e5 * random.lognormal(0, 0.1, num)).astype(np.int64),
        "accuracy_before": before, "accuracy_after": after if method != "none" else before,
    }  # fmt: skip
    priced |= {name.replace("_ms", "_mj"): values / 4 for name, values in priced.items() if name.endswith("_ms")}
    priced["energy_mj"], priced["energy_low_mj"], priced["energy_high_mj"] = (
        priced.pop(f"latency{end}_mj") for end in ("", "_low", "_high")
    )
    fixed = {
        "checkpoint": "c0ffee", "method": method, "variant": f"{method}-1", "device": f"device_{device:02d}",
        "backbone": "mcunet", "initialization": "pretrained", "resolution": 84, "split": "test", "way": 5,
        "support_size": 25, "query_size": 50, "plan_status": "ok" if trained else "not_applicable",
        "plan_hash": f"plan-{method}" if trained else None, "iterations": 40 if trained else 0, "status": "ok",
        "signature": "", "mode": "reference", "accuracy_numerics": "fp32", "price_numerics": "int8", "batch": 1,
        "fit_counter": "paper_memory", "fits": "yes", "standing": "estimate", "seed": 0, "attempt": 1, "host_ms": 1.0,
    }  # fmt: skip
    lists = {"plan_layers": layers, "plan_channels": [graph.layer(i).out_channels // 2 for i in layers or ()] or None}
    columns = {"task_id": tasks, "domain": domains, "task_index": pa.array(np.arange(num)), **priced}
    schema = result_schema()
    values = [
        pa.array(columns[f.name], type=f.type)
        if f.name in columns
        else pa.repeat(pa.scalar((fixed | lists).get(f.name), type=f.type), num)
        for f in schema
    ]
    return pa.Table.from_arrays(values, schema=schema)


def _curves(tasks: pa.Array, before: Any, after: Any, method: str) -> pa.Table:
    num = len(tasks)
    parts = [
        pa.table(
            {"task_id": tasks, **{k: pa.repeat(pa.scalar(v), num) for k, v in (
                ("checkpoint", "c0ffee"), ("method", method), ("variant", f"{method}-1"),
                ("plan_hash", f"plan-{method}"), ("iteration", step), ("loss", 1.0))},
             "accuracy": pa.array(before + (after - before) * step / STEPS[-1])}
        )
        for step in STEPS
    ]  # fmt: skip
    return pa.concat_tables(parts)


def _fisher(graph: LayerGraph, tasks: pa.Array, random: Any) -> pa.Table:
    inspected = graph.last_blocks(6)
    return pa.concat_tables(
        pa.table({
            "task_id": tasks, "checkpoint": pa.repeat(pa.scalar("c0ffee"), len(tasks)),
            "layer": pa.repeat(pa.scalar(layer, pa.int32()), len(tasks)),
            "potential": pa.array(random.exponential(1e-6, len(tasks))),
        })
        for layer in inspected
    )  # fmt: skip


def open_in_browser(page: Path) -> dict[str, float]:
    """Return medians over ``OPENINGS``, in seconds from opening the page.

    ``interactive_s``: a change of a filter has changed the tables, ``charts_s``: the first chart is drawn, ``drawn_s``:
    all are; ``cpu_s`` is the processor time the page's main thread took for it, which other work does not lengthen.
    """
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        return {}
    from playwright.sync_api import sync_playwright

    found: list[dict[str, float]] = []
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"])
        for _ in range(OPENINGS):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            session = tab.context.new_cdp_session(tab)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            start, seconds = time.perf_counter(), {}
            tab.goto(page.as_uri(), wait_until="commit")
            tab.wait_for_selector("body[data-interactive]", state="attached")
            tab.locator("#filter-domain").select_option(index=1)
            tab.wait_for_function("document.getElementById('shown').innerText.includes('clipart')")
            seconds["interactive_s"] = time.perf_counter() - start
            for name in ("charts", "drawn"):
                tab.wait_for_selector(f"body[data-{name}]", state="attached")
                seconds[f"{name}_s"] = time.perf_counter() - start
            metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
            found.append(seconds | {"cpu_s": metrics["ThreadTime"]})
            tab.close()
        browser.close()
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def measure(num_tasks: int, num_devices: int) -> dict[str, float]:
    """Return the size and the times of the page of a synthetic run."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        rows = write_run(folder, num_tasks=num_tasks, num_devices=num_devices)
        start = time.perf_counter()
        page = write_page(open_run(folder))
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        size = page.stat().st_size
        return {"rows": rows, "write_s": seconds, "peak_bytes": peak, "page_bytes": size} | open_in_browser(page)


def main() -> int:
    """Print every figure beside its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.tasks, options.devices)
    limits = {"page_bytes": float(LIMIT_BYTES), "interactive_s": LIMIT_INTERACTIVE_S}
    if options.json:
        print(json.dumps({**found, "limits": limits}))
    else:
        for name, value in found.items():
            limit = f"  (limit {limits[name]:,.6g})" if name in limits else ""
            print(f"{name:>14} {value:>14,.2f}{limit}")
    return int(any(found.get(name, 0.0) > limit for name, limit in limits.items()))


if __name__ == "__main__":
    sys.exit(main())
