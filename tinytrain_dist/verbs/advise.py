"""``tinytrain advise IMAGES``: one's own pictures in; a device, a method, a budget, and how sure that is, out."""

from __future__ import annotations

import argparse
import sys

from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.foundation.logs import start_logging
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.reporting.advice_rule import TOLERANCE_POINTS, check_tolerance
from tinytrain_dist.reporting.advice_text import document, render_advice
from tinytrain_dist.verbs.advise_job import DEFAULT_METHODS, Outcome, Request, run_advice
from tinytrain_dist.verbs.arguments import VerbParser, print_json
from tinytrain_dist.verbs.compare import add_limits, limits_of
from tinytrain_dist.verbs.compose import command_line


def main(argv: list[str]) -> ExitCode:
    """Print the advice for a folder of pictures; the same command answers from what is stored."""
    options = _parser().parse(argv)
    request = _request(options, command=command_line("advise", argv))
    start_logging()
    outcome = run_advice(request)
    if options.json:
        print_json(_document(outcome))
    else:
        sys.stdout.write(render_advice(outcome.advice))
        print(f"\nweights: {outcome.weights.path} ({outcome.weights.backbone}, {outcome.weights.card.initialization})")
        print(f"run directory: {outcome.run_folder}\npage: {outcome.page}")
    return outcome.exit_code


def _document(outcome: Outcome) -> dict[str, object]:
    places = {"run": outcome.run_folder, "page": outcome.page, "weights": outcome.weights.path}
    pictures = {"domain": outcome.pictures.name, "warnings": list(outcome.pictures.notes)}
    return document(outcome.advice) | {name: str(path) for name, path in places.items()} | pictures


def _parser() -> VerbParser:
    parser = VerbParser(
        "advise",
        description="Which device, method and budget for pictures of one's own: tasks are drawn from them, simulated, "
        "and judged by one rule (docs/advise.md). The same command resumes and answers from what is stored.",
        example="tinytrain advise my_photos --max-seconds 60 --max-ram 512KiB",
    )
    parser.add_argument("images", metavar="IMAGES", help="a folder with one folder of pictures per class")
    parser.add_argument("--devices", metavar="A,B,...", help="device profiles (default: all boards, default settings)")
    add_limits(parser)
    parser.add_argument(
        "--tolerance", metavar="POINTS", type=float, default=TOLERANCE_POINTS,
        help="points of accuracy below the best that count as equal (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--weights", metavar="FILE", help="checkpoint (default: shipped, else newest meta-trained)")
    parser.add_argument("--backbone", metavar="NAME", help="network the weights must be for")
    parser.add_argument("--methods", metavar="A,B,...", default=",".join(DEFAULT_METHODS), help="default: %(default)s")
    parser.add_argument("--shot", metavar="N", type=int, help="pictures per class to learn from (default: up to 5)")
    parser.add_argument("--tasks", metavar="N", type=int, help="tasks to draw (default: by the work they are)")
    parser.add_argument("--iterations", metavar="N", type=int, default=40, help="of the fine-tuning (default: 40)")
    parser.add_argument("--resolution", metavar="PIXELS", type=int, help="default: of the weights, at most 84")
    parser.add_argument("--executor", choices=("ray", "serial"), default="ray", help="where tasks run (default: ray)")
    parser.add_argument("--root", metavar="DIR", default="runs", help="folder of runs (default: runs)")
    return parser


def _request(options: argparse.Namespace, *, command: str) -> Request:
    check_tolerance(options.tolerance)
    return Request(
        images=local_path(options.images, what="IMAGES"),
        run_root=local_path(options.root, what="--root"),
        devices=None if options.devices is None else _names(options.devices, option="--devices"),
        methods=_names(options.methods, option="--methods"),
        limits=limits_of(options),
        tolerance_points=options.tolerance,
        weights=options.weights,
        backbone=options.backbone,
        shot=options.shot,
        num_tasks=options.tasks,
        iterations=options.iterations,
        resolution=options.resolution,
        executor=options.executor,
        command=command,
    )


def _names(text: str, *, option: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{option}: found {text!r}; allowed: names joined by commas, none twice")
    return names
