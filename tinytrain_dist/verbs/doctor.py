"""``tinytrain doctor``: looks at everything a job needs and says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from tinytrain_dist.foundation.diagnosis import Check, Diagnosis, diagnose
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.verbs.arguments import VerbParser, print_json

LIMIT_S = 15.0
"""No check may keep the others waiting for longer."""


def main(argv: list[str]) -> ExitCode:
    """Print every line; the exit code is that of the first problem."""
    parser = VerbParser(
        "doctor",
        description="Looks at versions, cores, memory, Ray, W&B, data, weights and storage, for at most "
        f"{LIMIT_S:g} s. Exit code 0: usable; else that of the kind of problem.",
        example="tinytrain doctor --root runs",
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="Ray cluster to ask (default: RAY_ADDRESS)")
    parser.add_argument("--root", default="runs", metavar="DIR", help="where runs go (default: %(default)s)")
    options = parser.parse(argv)
    lines = diagnose(_checks(options.root, options.address), limit_s=LIMIT_S)
    code = next((line.exit_code for line in lines if line.state == "problem"), ExitCode.DONE)
    if options.json:
        print_json({"usable": code == ExitCode.DONE, "exit_code": int(code), "checks": [_row(x) for x in lines]})
    else:
        _print(lines, code)
    return code


def _checks(root: str, address: str | None) -> dict[str, tuple[Check, ExitCode]]:
    """Return what is looked at, in the order it is shown, with the exit code of a check that has no answer."""
    return {
        "versions": (_check("verbs.doctor_versions", "diagnose_versions"), ExitCode.USAGE),
        "machine": (_check("execution.machine_check", "diagnose_machine"), ExitCode.USAGE),
        "ray": (_check("execution.cluster_check", "diagnose_cluster", address), ExitCode.NO_CLUSTER),
        "storage": (_check("foundation.storage.storage_check", "diagnose_storage", root), ExitCode.STORAGE),
        "data": (_check("data.bundled_check", "diagnose_bundled"), ExitCode.BAD_INPUT),
        "weights": (_check("backbones.checkpoint_check", "diagnose_checkpoints", root), ExitCode.BAD_INPUT),
        "wandb": (_check("reporting.wandb_check", "diagnose_wandb"), ExitCode.USAGE),
    }


def _check(module: str, function: str, *args: str | None) -> Check:
    """Return the check, imported only when it runs: a broken package must not hide the other lines."""

    def check() -> Iterable[Diagnosis]:
        found: Iterable[Diagnosis] = getattr(import_module(f"tinytrain_dist.{module}"), function)(*args)
        return found

    return check


def _row(line: Diagnosis) -> dict[str, Any]:
    return {"subject": line.subject, "state": line.state, "found": line.found, "advice": line.advice}


def _print(lines: list[Diagnosis], code: ExitCode) -> None:
    for line in lines:
        print(f"{line.state:<8} {line.subject:<14} {line.found}")
        if line.advice:
            print(f"{'':<23} -> {line.advice}")
    counts = {state: sum(line.state == state for line in lines) for state in ("ok", "warning", "problem")}
    text = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"usable: {text}" if code == ExitCode.DONE else f"not usable ({int(code)}: {code.describe()}): {text}")
