"""``tinytrain compare``: the planner's table of one run, or of several on the same tasks."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.reporting.comparison import BY_CHOICES, comparison_table
from tinytrain_dist.reporting.intervals import INTERVAL_KINDS
from tinytrain_dist.reporting.limits import Limits, millijoules, milliseconds, num_bytes
from tinytrain_dist.reporting.reading import read_run, vanishing_storage, worst
from tinytrain_dist.reporting.rendering import paragraphs, plain_text, render_table
from tinytrain_dist.reporting.runs import newest_run
from tinytrain_dist.reporting.several_runs import compare_runs
from tinytrain_dist.reporting.table_files import FORMATS, csv_text, write_rows
from tinytrain_dist.verbs.arguments import VerbParser, print_json


def main(argv: list[str]) -> ExitCode:
    """Print the comparison of one run directory, or of several."""
    options = _parser().parse(argv)
    form = _format(options)
    limits = limits_of(options)
    with vanishing_storage():
        readings = [read_run(location) for location in options.runs or [newest_run("runs")]]
        notes = [note for reading in readings for note in reading.notes]
        if len(readings) == 1:
            rows = comparison_table(readings[0].run, by=options.by, interval=options.interval, limits=limits)
        else:
            several = compare_runs([r.run for r in readings], by=options.by, interval=options.interval, limits=limits)
            rows, notes = several.rows, [*notes, *several.notes]
    plain = [row.to_dict() for row in rows]
    if options.csv:
        write_rows(plain, local_path(options.csv, what="CSV file"), "csv")
    if options.out:
        write_rows(plain, local_path(options.out, what="output file"), options.format)
    _print(plain, notes, "" if form != "table" else render_table(rows), form, options)
    return worst(readings)


def _print(plain: list[dict[str, Any]], notes: list[str], text: str, form: str, options: argparse.Namespace) -> None:
    """Print what was asked for; what is to be said goes to stderr where stdout holds a document."""
    if form == "table":
        sys.stdout.write(text + plain_text(paragraphs(notes)))
        return
    sys.stderr.write(plain_text(paragraphs(notes)) if notes else "")
    if options.out:
        sys.stderr.write(f"{len(plain)} rows: {options.out}\n")
    elif form == "json":
        print_json(plain)
    else:
        sys.stdout.write(csv_text(plain))


def _parser() -> VerbParser:
    parser = VerbParser(
        "compare",
        description="Accuracy, gain, fit and cost of each method of a run, with 95 % intervals over its tasks. Several "
        "runs: the same tasks paired, each later run against the first.",
        example="tinytrain compare --by device --max-seconds 60 --csv comparison.csv",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="run directories, paths or URIs (default: the newest in runs/)"
    )
    parser.add_argument(
        "--by", default="device", metavar="WHAT",
        help=f"what to group by: {', '.join(BY_CHOICES)}; several joined by commas (default: device)",
    )  # fmt: skip
    parser.add_argument(
        "--interval", choices=INTERVAL_KINDS, default="t", help="95 %% interval over tasks (default: t, Student's)"
    )
    parser.add_argument("--format", choices=("table", *FORMATS), default=None, help="what to print (default: table)")
    parser.add_argument("--out", metavar="FILE", help="write it to this file instead (needs --format)")
    parser.add_argument("--csv", metavar="FILE", help="also write the rows to this CSV file")
    add_limits(parser)
    return parser


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options that limit what one adaptation may take."""
    parser.add_argument("--max-ram", metavar="BYTES", help="RAM of one adaptation, such as 256KiB")
    parser.add_argument("--max-seconds", metavar="TIME", help="time of one adaptation, such as 60 or 2min")
    parser.add_argument("--max-joules", metavar="ENERGY", help="energy of one adaptation, such as 5 or 300mJ")


def limits_of(options: argparse.Namespace) -> Limits:
    """Return the limits of ``add_limits``; raises ``ConfigError`` for what is no quantity."""
    return Limits(
        max_ram_bytes=num_bytes(options.max_ram, option="--max-ram") if options.max_ram else None,
        max_latency_ms=milliseconds(options.max_seconds, option="--max-seconds") if options.max_seconds else None,
        max_energy_mj=millijoules(options.max_joules, option="--max-joules") if options.max_joules else None,
    )


def _format(options: argparse.Namespace) -> str:
    found = options.format or ("json" if options.json else "table")
    if options.json and found != "json":
        raise ConfigError(f"--format {found}: contradicts --json")
    if options.out and options.format in (None, "table"):
        raise ConfigError("--out: needs --format csv, parquet or json")
    if found == "parquet" and not options.out:
        raise ConfigError("--format parquet: needs --out FILE")
    return str(found)
