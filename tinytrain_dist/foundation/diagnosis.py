"""One line of ``tinytrain doctor``: what was looked at, what was found, what to do about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.redaction import redact_text

State = Literal["ok", "warning", "problem"]
Check = Callable[[], Iterable["Diagnosis"]]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found about one subject.

    Attributes
    ----------
    advice
        What to do; never empty for a warning or a problem.
    exit_code
        What a job would end with because of this; ``DONE`` unless it is a problem.
    """

    subject: str
    state: State
    found: str
    advice: str = ""
    exit_code: ExitCode = ExitCode.DONE

    def __post_init__(self) -> None:
        assert self.state == "ok" or self.advice, self
        assert (self.state == "problem") == (self.exit_code != ExitCode.DONE), self


def ok(subject: str, found: str, advice: str = "") -> Diagnosis:
    """Return a line about something that is as it should be."""
    return Diagnosis(subject=subject, state="ok", found=found, advice=advice)


def warning(subject: str, found: str, advice: str) -> Diagnosis:
    """Return a line about something that works, but not as well or as safely as it could."""
    return Diagnosis(subject=subject, state="warning", found=found, advice=advice)


def problem(subject: str, found: str, advice: str, *, exit_code: ExitCode) -> Diagnosis:
    """Return a line about something that would end a job with ``exit_code``."""
    return Diagnosis(subject=subject, state="problem", found=found, advice=advice, exit_code=exit_code)


def diagnose(checks: dict[str, tuple[Check, ExitCode]], *, limit_s: float) -> list[Diagnosis]:
    """Run all checks side by side and return their lines in order; none may take longer than ``limit_s``.

    A check that has no answer by then (a hanging network file system, say), or that itself fails, is a problem
    with the exit code given beside it.
    """
    answers: dict[str, list[Diagnosis]] = {}
    threads = [
        threading.Thread(target=_answer, args=(subject, check, code, answers), daemon=True)
        for subject, (check, code) in checks.items()
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    lines = (answers.get(subject, [_late(subject, limit_s, code)]) for subject, (_, code) in checks.items())
    return [line for group in lines for line in group]


def _answer(subject: str, check: Check, code: ExitCode, answers: dict[str, list[Diagnosis]]) -> None:
    try:
        answers[subject] = list(check())
    except Exception as error:  # a broken installation raises anything; the other lines must still be seen
        found = redact_text(f"cannot be checked: {type(error).__name__}: {' '.join(str(error).split())}")
        answers[subject] = [problem(subject, found, "reinstall, or report this", exit_code=code)]


def _late(subject: str, limit_s: float, code: ExitCode) -> Diagnosis:
    advice = "find out what hangs: a network file system, a firewall that drops packets"
    return problem(subject, f"no answer within {limit_s:g} s", advice, exit_code=code)
