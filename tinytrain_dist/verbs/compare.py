"""``tinytrain compare``: the planner's table of a run."""

from __future__ import annotations

import sys

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.reporting.comparison import BY_CHOICES, comparison_table
from tinytrain_dist.reporting.csv_export import write_csv
from tinytrain_dist.reporting.rendering import render_table
from tinytrain_dist.reporting.runs import newest_run, open_run
from tinytrain_dist.verbs.arguments import VerbParser, print_json


def main(argv: list[str]) -> ExitCode:
    """Print the comparison of one run directory."""
    parser = VerbParser(
        "compare",
        description="Accuracy, gain, fit and cost of each method of a run, with 95 % intervals over its tasks.",
        example="tinytrain compare --by device --csv comparison.csv",
    )
    parser.add_argument("run", metavar="RUN", nargs="?", help="run directory (default: the newest in runs/)")
    parser.add_argument("--by", choices=BY_CHOICES, default="device", help="what to group by (default: device)")
    parser.add_argument("--csv", metavar="FILE", help="also write the rows to this CSV file")
    options = parser.parse(argv)
    rows = comparison_table(open_run(options.run or newest_run("runs")), by=options.by)
    if options.csv:
        write_csv(rows, local_path(options.csv, what="CSV file"))
    if options.json:
        print_json([row.to_dict() for row in rows])
    else:
        sys.stdout.write(render_table(rows))
    return ExitCode.DONE
