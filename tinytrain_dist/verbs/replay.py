"""``tinytrain replay RUN --task T``: runs stored rows again, alone, and says whether they are equal."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinytrain_dist.foundation.errors import ConfigError, ExitCode, nearest
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.reporting.runs import RunResults, newest_run, open_run
from tinytrain_dist.simulation.replay import Places, ReplayedRow, replay
from tinytrain_dist.verbs.arguments import VerbParser, print_json

MAX_NAMES = 1000
"""Task ids that are read to name the nearest one."""


def main(argv: list[str]) -> ExitCode:
    """Replay the rows the options choose; ``LOCKED`` (the run is incompatible) where one of them is not equal."""
    parser = VerbParser(
        "replay",
        description="Computes stored rows of one task again, alone, in this process, and compares every column "
        "with what is stored, bit for bit (columns about the computing machine left out). Exit code 0: equal; "
        "4: not.",
        example="tinytrain replay --task signs/test/fixed-5w5s10q/s0/0 --method tinytrain",
    )
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="run directory, a path or URI (default: the newest in runs/)"
    )
    parser.add_argument("--task", required=True, metavar="T", help="task id, as in the column task_id")
    parser.add_argument("--device", metavar="D", help="only the rows of this device")
    parser.add_argument("--method", metavar="M", help="only the rows of this method")
    parser.add_argument("--weights", metavar="FILE", help="the run's checkpoint, if it is not where it was")
    parser.add_argument("--root", action="append", metavar="DIR", help="a folder with own domains, if it has moved")
    parser.add_argument("--device-dir", action="append", metavar="DIR", help="a folder with own profiles, likewise")
    options = parser.parse(argv)
    run = open_run(options.run or newest_run("runs"))
    found = replay(run.record, _stored(run, options), places=_places(run, options))
    _print(run, options, found)
    return ExitCode.DONE if all(row.equal for row in found) else ExitCode.LOCKED


def _stored(run: RunResults, options: argparse.Namespace) -> list[dict[str, Any]]:
    asked = {"task_id": options.task, "method": options.method, "device": options.device}
    chosen = {column: value for column, value in asked.items() if value is not None}
    where = " AND ".join(f"{column} = ?" for column in chosen)
    rows = run.select(f"SELECT * FROM stored WHERE {where} ORDER BY method, variant, device", list(chosen.values()))
    if not rows:
        raise ConfigError(_missing(run, chosen))
    return rows


def _missing(run: RunResults, chosen: dict[str, str]) -> str:
    """Return which option names nothing that is stored, with the nearest names."""
    known: dict[str, str] = {}
    for column, value in chosen.items():
        known[column] = value
        where = " AND ".join(f"{name} = ?" for name in known)
        if not run.select(f"SELECT 1 FROM stored WHERE {where} LIMIT 1", list(known.values())):
            others = [f"{name} = ?" for name in known if name != column]
            scope = f"WHERE {' AND '.join(others)}" if others else ""
            sql = f"SELECT DISTINCT {column} AS name FROM stored {scope} ORDER BY name LIMIT {MAX_NAMES}"
            names = [row["name"] for row in run.select(sql, [known[name] for name in known if name != column])]
            option = column.removesuffix("_id")
            return f"--{option}: unknown {option} {value!r} in {run.location}; {nearest(value, names)}"
    raise AssertionError("a row is missing, but every value of its key is there")


def _places(run: RunResults, options: argparse.Namespace) -> Places:
    return Places(
        weights=local_path(options.weights, what="--weights") if options.weights else None,
        search=run.path.parent if run.path == Path(run.location) else None,
        data_roots=tuple(options.root) if options.root else None,
        device_dirs=tuple(options.device_dir) if options.device_dir else None,
    )


def _print(run: RunResults, options: argparse.Namespace, found: list[ReplayedRow]) -> None:
    equal = sum(row.equal for row in found)
    if options.json:
        rows = [{**asdict(row), "equal": row.equal} for row in found]
        print_json({"run": run.location, "task": options.task, "equal": equal == len(found), "rows": rows})
        return
    for row in found:
        print(f"{row.method} on {row.device} ({row.variant}): {_verdict(row)}")
        for item in row.differences:
            print(f"  {item.column}: stored {item.stored!r}, replayed {item.replayed!r}")
    print(f"{equal} of {len(found)} rows of {options.task} are equal")


def _verdict(row: ReplayedRow) -> str:
    if row.equal:
        return f"equal in all {row.columns} columns"
    failed = f" (stored as {row.status})" if row.status != "ok" else ""
    return f"differs in {len(row.differences)} of {row.columns} columns{failed}"
