"""``tinytrain plan``: what a capacity planner asks of a run, answered from stored results alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.reporting.fleet_mix import Part, check_per_day, read_mix
from tinytrain_dist.reporting.intervals import INTERVAL_KINDS
from tinytrain_dist.reporting.limits import millijoules, milliseconds
from tinytrain_dist.reporting.pareto import COSTS, check_costs
from tinytrain_dist.reporting.planner import answer
from tinytrain_dist.reporting.planner_text import render_plan
from tinytrain_dist.reporting.questions import WHAT_IF_KEYS, Questions, what_if_question
from tinytrain_dist.reporting.reading import read_run, vanishing_storage
from tinytrain_dist.reporting.runs import newest_run
from tinytrain_dist.reporting.table_files import FORMATS, write_rows
from tinytrain_dist.verbs.arguments import VerbParser, print_json
from tinytrain_dist.verbs.compare import add_limits, limits_of

SECTIONS = ("fits", "pareto", "smallest", "within_time", "within_energy", "fleet", "runner_up")


def main(argv: list[str]) -> ExitCode:
    """Answer the questions about one run directory."""
    options = _parser().parse(argv)
    asked = _questions(options)
    with vanishing_storage():
        reading = read_run(options.run or newest_run("runs"))
        document = answer(reading.run, asked)
    document["notes"] = [*reading.notes, *document["notes"]]
    if options.out:
        _write_section(document, options)
    if options.json:
        print_json(document)
    else:
        sys.stdout.write(render_plan(document))
    return reading.exit_code


def _write_section(document: dict[str, object], options: argparse.Namespace) -> None:
    section = options.section or ("fleet" if options.fleet else "fits")
    rows = document.get(section)
    if not isinstance(rows, list):
        raise ConfigError(
            f"--section {section}: not asked for; there is {', '.join(s for s in SECTIONS if s in document)}"
        )
    write_rows(rows, local_path(options.out, what="output file"), options.format)


def _parser() -> VerbParser:
    parser = VerbParser(
        "plan",
        description="What fits, Pareto fronts, budgets, other devices and limits, fleets: from stored results, without "
        "training. Without an option: what fits where, the fronts, and what the runner-up lacks.",
        example="tinytrain plan --what-if device=raspberry_pi_5 max_seconds=60",
    )
    parser.add_argument("run", metavar="RUN", nargs="?", help="run directory (default: the newest in runs/)")
    parser.add_argument(
        "--what-if", metavar="KEY=VALUE", nargs="+",
        help=f"another device, RAM, power mode or limit; keys: {', '.join(WHAT_IF_KEYS)}",
    )  # fmt: skip
    parser.add_argument("--pareto", metavar="COST", nargs="+", help=f"fronts against {', '.join(COSTS)} or all")
    parser.add_argument("--smallest", action="store_true", help="smallest device within the limits and --min-accuracy")
    parser.add_argument("--min-accuracy", metavar="SHARE", type=float, help="mean accuracy to reach, such as 0.6")
    parser.add_argument("--within-seconds", metavar="TIME", help="accuracy reached by then, such as 30 or 2min")
    parser.add_argument("--within-joules", metavar="ENERGY", help="accuracy reached for that, such as 5 or 300mJ")
    parser.add_argument("--fleet", metavar="MIX.csv", help="device,count[,method,variant,adaptations_per_day,...]")
    parser.add_argument("--per-day", metavar="N", type=float, help="adaptations per device of --fleet (default: 1)")
    parser.add_argument("--interval", choices=INTERVAL_KINDS, default="t", help="95 %% interval over tasks")
    parser.add_argument("--out", metavar="FILE", help="also write one section to this file")
    parser.add_argument("--section", choices=SECTIONS, help="section for --out (default: fits, or fleet with --fleet)")
    parser.add_argument("--format", choices=FORMATS, default="csv", help="format of --out (default: csv)")
    add_limits(parser)
    return parser


def _questions(options: argparse.Namespace) -> Questions:
    accuracy = options.min_accuracy
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise ConfigError(f"--min-accuracy: found {accuracy}; allowed: a share from 0 to 1, such as 0.6")
    within_s, within_j = options.within_seconds, options.within_joules
    return Questions(
        what_if=what_if_question(options.what_if) if options.what_if is not None else None,
        limits=limits_of(options),
        pareto=tuple(check_costs(options.pareto or ())),
        smallest=options.smallest or accuracy is not None,
        min_accuracy=accuracy,
        within_ms=milliseconds(within_s, option="--within-seconds") if within_s else None,
        within_mj=millijoules(within_j, option="--within-joules") if within_j else None,
        mix=_mix(options),
        interval=options.interval,
    )


def _mix(options: argparse.Namespace) -> tuple[Part, ...]:
    if options.fleet is None:
        if options.per_day is not None:
            raise ConfigError("--per-day: is of the devices of a fleet; name its mix with --fleet MIX.csv")
        return ()
    per_day = 1.0 if options.per_day is None else options.per_day
    check_per_day(per_day)
    return tuple(read_mix(Path(options.fleet), adaptations_per_day=per_day))
