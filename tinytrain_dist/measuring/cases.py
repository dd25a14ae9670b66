"""``Case``: one thing to time, and the operation totals its row states."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tinytrain_dist.costs.phase_amounts import Amounts

Result = TypeVar("Result")


class PartClock:
    """Processor time of the wanted part."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, run: Callable[[], Result]) -> Result:
        """Run and count it."""
        start = time.thread_time()
        result = run()
        self.seconds += time.thread_time() - start
        return result


class Probe:
    """A run that times only the part of itself that is wanted: ``seconds`` adds up over the runs."""

    def __init__(self, run: Callable[[], object], part: PartClock) -> None:
        self.run, self.part = run, part


Run = Callable[[], object] | Probe


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row to measure.

    Attributes
    ----------
    phase
        One of ``costs.measurements.PHASES``.
    model, family
        Name of what runs, and what is left out together when a fit is checked.
    resolution
        Pixels of the input.
    amounts
        Counts of one image (of one step: ``optimizer``, ``load``), by the names of ``costs.phase_amounts``.
    build
        Makes what runs when the case's turn has come; the time is the sum over the parts.
    per_image
        Whether the time is divided by the batch.
    waits
        Whether waiting counts (storage): wall time, without a ratio to the reference kernel.
    """

    phase: str
    model: str
    family: str
    resolution: int
    amounts: Amounts
    build: Callable[[], tuple[Run, ...]]
    per_image: bool = True
    waits: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Identity inside one file."""
        return self.phase, self.model
