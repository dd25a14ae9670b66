"""``tinytrain report``: the HTML page of a run, its W&B run, and a W&B Report on its domains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.reporting.page import write_page
from tinytrain_dist.reporting.reading import Reading, read_run, vanishing_storage
from tinytrain_dist.reporting.rendering import paragraphs, plain_text
from tinytrain_dist.reporting.runs import newest_run
from tinytrain_dist.reporting.training_page import write_training_page
from tinytrain_dist.reporting.training_run import is_training, open_training
from tinytrain_dist.reporting.wandb_report import write_report
from tinytrain_dist.reporting.wandb_run import log_to_wandb
from tinytrain_dist.reporting.wandb_session import MODES, PROJECT, Mode
from tinytrain_dist.reporting.wandb_training import log_training_to_wandb
from tinytrain_dist.verbs.arguments import VerbParser, print_json


def main(argv: list[str]) -> ExitCode:
    """Write the page of one run directory and, if asked to, its W&B run and report."""
    options = _parser().parse(argv)
    start_logging()
    mode: Mode = options.wandb_mode if options.wandb else "disabled"
    with vanishing_storage():
        location = options.run or newest_run("runs")
        if is_training(location):
            return _say(_training(location, mode), options.json, asked=options.wandb)
        reading = read_run(location)
        sys.stderr.write(plain_text(paragraphs(reading.notes)) if reading.notes else "")
        _say(_simulation(reading, mode), options.json, asked=options.wandb)
    return reading.exit_code


def _parser() -> VerbParser:
    parser = VerbParser(
        "report",
        description="Writes RUN/report.html: one file with tables, charts and provenance that needs no network. RUN is "
        "a simulation or a training, finished or not.",
        example="tinytrain report --wandb",
    )
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="run directory, a path or URI (default: the newest in runs/)"
    )
    parser.add_argument(
        "--wandb", action="store_true", help="also write its W&B run and report (a failure is only logged)"
    )
    parser.add_argument(
        "--wandb-mode", choices=MODES, default="auto", help="auto: online if a key is there, else offline"
    )
    return parser


def _simulation(reading: Reading, mode: Mode) -> dict[str, Any]:
    run = reading.run
    page = write_page(run, notes=reading.notes)
    found: dict[str, Any] = {"page": run.folder.publish(page), "bytes": page.stat().st_size}
    if mode == "disabled":
        return found | {"wandb": None}
    written = log_to_wandb(run, mode=mode, project=_project(run.config))
    report = write_report(run, logged_in=_is_online(written), project=_project(run.config))
    return found | {
        "wandb": run.folder.publish(written) if written else None,
        "wandb_report": run.folder.publish(report) if isinstance(report, Path) else report,
    }


def _training(location: str | Path, mode: Mode) -> dict[str, Any]:
    run = open_training(location)
    page = write_training_page(run)
    written = log_training_to_wandb(run, mode=mode)
    return {"page": str(page), "bytes": page.stat().st_size, "wandb": str(written) if written else None}


def _say(found: dict[str, Any], as_json: bool, *, asked: bool) -> ExitCode:
    if as_json:
        print_json(found)
        return ExitCode.DONE
    lines = [f"page: {found['page']}"]
    if asked:
        lines.append(f"W&B run: {found['wandb'] or 'not written, see the log'}")
    if found.get("wandb_report"):
        lines.append(f"W&B report: {found['wandb_report']}")
    sys.stdout.write("\n".join(lines) + "\n")
    return ExitCode.DONE


def _is_online(folder: Path | None) -> bool:
    """The client names what it writes offline so; the copy of a refused run is offline, too."""
    return folder is not None and not folder.name.startswith("offline-")


def _project(config: dict[str, Any]) -> str:
    """Return the project the run's own configuration names."""
    found = config.get("wandb")
    return str(found.get("project") or PROJECT) if isinstance(found, dict) else PROJECT
