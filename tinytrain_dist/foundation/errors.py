"""Errors a user can act on, and the exit code each one ends the program with.

Every error names the file, key or option, what was found and what is allowed. A bug of ours is an
``AssertionError`` and never one of these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes; ``describe`` gives the words printed as the last line of a job."""

    DONE = 0
    USAGE = 2
    BAD_INPUT = 3
    LOCKED = 4
    PARTIAL = 5
    TOO_MANY_FAILURES = 6
    NO_CLUSTER = 7
    STORAGE = 8
    INTERRUPTED = 130
    TERMINATED = 143

    def describe(self) -> str:
        """Return the meaning of this code in words."""
        return _WORDS[self]


_WORDS: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.USAGE: "usage or configuration error",
    ExitCode.BAD_INPUT: "bad data, profile or checkpoint",
    ExitCode.LOCKED: "run locked or incompatible",
    ExitCode.PARTIAL: "partial: some rows failed",
    ExitCode.TOO_MANY_FAILURES: "too many failures",
    ExitCode.NO_CLUSTER: "no cluster, or too small a cluster",
    ExitCode.STORAGE: "storage error",
    ExitCode.INTERRUPTED: "interrupted; the same command resumes",
    ExitCode.TERMINATED: "terminated; the same command resumes",
}


class TinyTrainError(ValueError):
    """A mistake in what the program was given; ends it with ``exit_code`` and one clear message."""

    exit_code: ExitCode = ExitCode.USAGE


class ConfigError(TinyTrainError):
    """Unknown option or key, or a value outside what is allowed."""


class DataError(TinyTrainError):
    """A domain, image or episode setting that the data cannot satisfy."""

    exit_code = ExitCode.BAD_INPUT


class ProfileError(TinyTrainError):
    """A device profile that does not follow the schema."""

    exit_code = ExitCode.BAD_INPUT


class CheckpointError(TinyTrainError):
    """A weight file that is damaged, unsafe or of another architecture."""

    exit_code = ExitCode.BAD_INPUT


class PlanError(TinyTrainError):
    """An update plan that does not belong to the backbone it is used with."""

    exit_code = ExitCode.BAD_INPUT


class RunLockedError(TinyTrainError):
    """The run directory is held by a living process, or its identity differs from the request."""

    exit_code = ExitCode.LOCKED


class TooManyFailuresError(TinyTrainError):
    """More tasks failed than ``max_failed_share`` admits."""

    exit_code = ExitCode.TOO_MANY_FAILURES


class ClusterError(TinyTrainError):
    """No Ray cluster answers, or it is too small for one worker."""

    exit_code = ExitCode.NO_CLUSTER


class StorageError(TinyTrainError):
    """Output that cannot be written, or stored results that cannot be read."""

    exit_code = ExitCode.STORAGE


MAX_LISTED = 20


def nearest(name: str, allowed: Iterable[str], *, limit: int = 3) -> str:
    """Return ``did you mean ...`` for close names, else all allowed ones (of a long list the nearest few)."""
    options = sorted(allowed)
    close = difflib.get_close_matches(name, options, n=limit, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    if len(options) > MAX_LISTED:
        return "nearest: " + ", ".join(difflib.get_close_matches(name, options, n=2 * limit, cutoff=0.0))
    return "allowed: " + ", ".join(options)
