"""The engine's scale and speed, each figure beside its limit.

    python benchmarks/engine.py                       everything, about half an hour on 2 cores
    python benchmarks/engine.py --parts fleet commits --small

``lost`` and ``rerun`` start Ray; the others are the driver's own work. ``--small`` divides the sizes by a hundred
(``lost``: by twenty): it shows that the parts run, its figures are no measurement.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import engine_fleet
import engine_scale
import engine_work

SIGMA = 0.41
"""Spread (standard deviation of the logarithm) of the seconds of 40 tasks of the quickstart: see ``--run``."""


TUNED_SEEDS, OTHER_SEEDS = range(3), range(100, 105)


def say(what: str, value: str, limit: str, good: bool | None = None) -> None:
    """Print one line."""
    verdict = "" if good is None else ("  ok" if good else "  MISSED")
    print(f"  {what:<66} {value:>16}   {limit}{verdict}", flush=True)


def lost(scale: int) -> None:
    """Lost time at two workers, two workers against one."""
    found = engine_work.lost_time(num_units=2000 // min(scale, 20), unit_ms=100.0)
    two, one = found["two"], found["one"]
    say("start of Ray, left out", f"{found['start_s']:.1f} s", "")
    say("lost time, 2 workers", f"{100 * two['lost']:.2f} %", "limit 5 %", two["lost"] <= 0.05)
    say("lost time, 1 worker", f"{100 * one['lost']:.2f} %", "")
    say("2 workers against 1, same units", f"{found['speedup']:.2f} x", "limit 1.85 x", found["speedup"] >= 1.85)


def million(scale: int) -> None:
    """Planning and dispatching a million units; completing them writes tables, whose memory is that of `rows`."""
    few, many = engine_scale.million((10_000 // min(scale, 10), 1_000_000 // scale))
    ratio = many["peak_bytes"] / few["peak_bytes"]
    say(
        f"memory, {1_000_000 // scale:,} units of nothing against 1 % of them",
        f"{ratio:.2f} x",
        "limit 1.3 x",
        ratio <= 1.3,
    )
    say("peak memory of the driver", f"{many['peak_bytes'] / 2**20:.0f} MiB", "")
    say("planning", f"{many['planned_s']:.1f} s", "limit 90 s", many["planned_s"] <= 90)
    half = engine_scale.planned_seconds(1_000_000 // scale)
    say("planning, half of every domain done", f"{half:.1f} s", "limit 90 s", half <= 90)
    say(f"planned, dispatched, committed ({many['chunks']:,} chunks)", f"{many['s']:.1f} s", "")


def commits(scale: int) -> None:
    """Manifest operations per chunk."""
    few, many = engine_scale.commits((10_000 // scale, 100_000 // scale))
    for key, unit in (("calls", ""), ("bytes", " B"), ("ms", " ms")):
        ratio = many[key] / few[key]
        value = f"{few[key]:.2f}{unit} -> {many[key]:.2f}{unit}"
        say(
            f"{key} per commit after {few['chunks']:,} and {many['chunks']:,}",
            value,
            "flat: within 1.3 x",
            ratio <= 1.3,
        )


def rerun(scale: int) -> None:
    """The same command again."""
    with TemporaryDirectory() as folder:
        found = engine_work.finished_rerun(Path(folder))
    assert found["first"]["code"] == found["again"]["code"] == 0
    say(
        "a finished run again (100 tasks), imports left out",
        f"{found['again']['s']:.2f} s",
        "limit 5 s",
        found["again"]["s"] <= 5,
    )
    say("it started Ray", str(found["again"]["ray"]), "limit no", not found["again"]["ray"])
    say("the first time", f"{found['first']['s']:.1f} s", "")


def rows(scale: int) -> None:
    """Ten million rows."""
    found = engine_scale.in_process("engine_rows", "finish_and_aggregate", 10_000_000 // scale)
    both = found["finish_s"] + found["table_s"]
    say(f"{found['rows']:,} rows: check every shard", f"{found['open_s']:.1f} s", "")
    say("shards to results/, tasks, failures and hash", f"{found['finish_s']:.1f} s", "")
    say("a table by device, method and domain", f"{found['table_s']:.1f} s", "")
    say("aggregating: both", f"{both:.1f} s", "limit 60 s", both <= 60)
    peak = found["peak_bytes"] / 2**30
    say("peak memory", f"{peak:.2f} GiB", "limit 2 GiB", peak <= 2)


def fleet(scale: int) -> None:
    """256 simulated workers under the engine's dispatch."""
    logging.getLogger("tinytrain_dist").setLevel(logging.ERROR)  # 1 % of the units fail, on purpose
    workers = 256 if scale == 1 else 32
    for restart_s, seeds in ((0.0, OTHER_SEEDS), (2.0, OTHER_SEEDS), (0.0, TUNED_SEEDS)):
        engine_fleet.RESTART_S = restart_s
        which = "those the engine's constants were chosen on" if seeds is TUNED_SEEDS else "none it was tuned on"
        print(f"  {workers} workers, 50 units each, an ended worker is replaced after {restart_s:g} s; seeds: {which}")
        for row in engine_fleet.table(num_workers=workers, units_per_worker=50, mean_s=1.0, sigma=SIGMA, seeds=seeds):
            judged = row["policy"] == "this engine" and row["stragglers"] == "machine" and not restart_s and scale == 1
            what = f"utilisation, {row['policy']}, a straggling {row['stragglers']}"
            limit = "limit 0.93" if judged else ""
            value = f"{row['mean']:.3f} ({row['lowest']:.3f})"
            say(what, value, limit, row["mean"] >= 0.93 if judged else None)


PARTS = {part.__name__: part for part in (fleet, million, commits, rerun, rows, lost)}


def main() -> None:
    """Print the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--run", type=Path, help="a run directory whose spread of unit times `fleet` takes")
    options = parser.parse_args()
    if options.run is not None:
        global SIGMA
        SIGMA = engine_fleet.measured_sigma(options.run)
    for name in options.parts:
        print(f"{name}: {PARTS[name].__doc__}")
        PARTS[name](100 if options.small else 1)


if __name__ == "__main__":
    main()
