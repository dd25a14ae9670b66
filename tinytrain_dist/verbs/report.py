"""``tinytrain report``: the HTML page of a run, and its W&B run."""

from __future__ import annotations

import sys

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.reporting.page import write_page
from tinytrain_dist.reporting.runs import newest_run, open_run
from tinytrain_dist.reporting.wandb_run import log_to_wandb
from tinytrain_dist.reporting.wandb_session import MODES
from tinytrain_dist.verbs.arguments import VerbParser, print_json


def main(argv: list[str]) -> ExitCode:
    """Write the page of one run directory and, if asked to, its W&B run."""
    parser = VerbParser(
        "report",
        description="Writes RUN/report.html: one file with tables, charts and provenance that needs no network.",
        example="tinytrain report --wandb",
    )
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="run directory, a path or URI (default: the newest in runs/)"
    )
    parser.add_argument("--wandb", action="store_true", help="also write a W&B run (a failure is only logged)")
    parser.add_argument(
        "--wandb-mode", choices=MODES, default="auto", help="auto: online if a key is there, else offline"
    )
    options = parser.parse(argv)
    start_logging()
    run = open_run(options.run or newest_run("runs"))
    page = write_page(run)
    kept = run.folder.publish(page)
    written = log_to_wandb(run, mode=options.wandb_mode) if options.wandb else None
    folder = run.folder.publish(written) if written else None
    if options.json:
        print_json({"page": kept, "bytes": page.stat().st_size, "wandb": folder})
        return ExitCode.DONE
    lines = [f"page: {kept}"] + ([f"W&B run: {folder or 'not written, see the log'}"] if options.wandb else [])
    sys.stdout.write("\n".join(lines) + "\n")
    return ExitCode.DONE
