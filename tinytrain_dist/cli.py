"""The console command ``tinytrain``: finds the verb, runs it, turns errors into exit codes.

Imports nothing heavy: ``tinytrain --help`` must start in under half a second.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from tinytrain_dist import __version__
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, TinyTrainError, nearest
from tinytrain_dist.foundation.interrupts import graceful_termination, interrupt_code

VERBS: dict[str, str] = {
    "data": "list, check or import domains of images",
    "backbones": "list backbones, or one backbone's layer table",
    "weights": "list, check or import checkpoints",
    "devices": "list, show or check device profiles",
    "predict": "time and energy of networks on a device, from their operation totals",
    "measure": "time layers and steps on this machine, as rows for calibrate",
    "calibrate": "fit device profiles to rows of measurements",
    "costs": "memory, MACs, time and energy of a method, without training",
    "pretrain": "train a backbone on its own or by a teacher before any episode (Ray actors)",
    "meta-train": "meta-train a backbone on episodes (Ray actors)",
    "simulate": "adapt to target tasks and price them on devices (Ray tasks)",
    "study": "a named set of simulations, and tables of what they say together",
    "advise": "own pictures in, a device, method and budget out, with how sure that is",
    "search-static": "find a static scheme for sparse_update under a budget (Ray tasks)",
    "compare": "the planner's table of a run, or of several on the same tasks",
    "plan": "what fits where, fronts, what-ifs and fleets, from stored results",
    "report": "the HTML page of a run, and its W&B run",
    "replay": "one stored row computed again, alone, and compared",
    "doctor": "versions, Ray, W&B, data, weights, disk: what is wrong here and what to do",
}
JOB_VERBS = frozenset(
    {"search-static", "calibrate", "measure", "pretrain", "meta-train", "simulate", "study", "advise"}
)


def usage() -> str:
    """Return the text of ``tinytrain --help``."""
    lines = [f"  {name:<14} {text}" for name, text in VERBS.items()]
    return (
        "usage: tinytrain VERB [options]\n\n"
        "Meta-training and simulated on-device few-shot training over fleets of devices.\n\n"
        "verbs:\n" + "\n".join(lines) + "\n\n"
        "example:\n  tinytrain simulate experiment=quickstart\n\n"
        "'tinytrain VERB --help' shows a verb's options and an example."
    )


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the process exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = words[0] if words else "--help"
    if verb in ("--help", "-h"):
        print(usage())
        return ExitCode.DONE
    if verb == "--version":
        print(f"tinytrain_dist {__version__}")
        return ExitCode.DONE
    with graceful_termination():
        code = _run(verb, words[1:])
    if verb in JOB_VERBS and not {"--help", "-h"} & set(words):
        print(f"exit code {int(code)}: {code.describe()}", file=sys.stderr, flush=True)
    return int(code)


def _run(verb: str, words: list[str]) -> ExitCode:
    try:
        if verb not in VERBS:
            raise ConfigError(f"unknown verb {verb!r}; {nearest(verb, VERBS)}")
        module = import_module(f"tinytrain_dist.verbs.{verb.replace('-', '_')}")
        return ExitCode(module.main(words))
    except TinyTrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return interrupt_code()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
