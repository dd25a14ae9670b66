"""Training accuracy by domain in stretches of rounds: a single round has too few episodes of a domain to say much.

The unit is the training episode: a stretch's mean is over all episodes of the domain in it, its 95 % t-interval is of
that mean. Weights change within a stretch, so it says how sure the mean is, not how good the weights are at its end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, stdev

from tinytrain_dist.reporting.intervals import Estimate, t_interval
from tinytrain_dist.reporting.training_run import TrainingRun

NUM_STRETCHES = 40
MIN_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Rounds ``first`` to ``last``, and by domain the mean accuracy of their episodes (a share) with its interval."""

    first: int
    last: int
    domains: dict[str, Estimate]

    def figures(self) -> dict[str, float]:
        """Return mean, interval and number of episodes by the names W&B shows; no interval of a single episode."""
        found: dict[str, float] = {}
        for name, estimate in self.domains.items():
            values = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "episodes": estimate.num}
            found |= {f"accuracy/{name}/{key}": value for key, value in values.items() if value is not None}
        return found


def stretch_rounds(run: TrainingRun) -> int:
    """Return how many rounds a stretch has: known from the start, so that it is the same however far the run is."""
    return max(MIN_ROUNDS, -(-run.length // NUM_STRETCHES))


def stretches(run: TrainingRun) -> Iterator[Stretch]:
    """Yield the stretches in which there were episodes of known domains; the last may be unfinished."""
    width = stretch_rounds(run)
    last = run.curves[-1]["round"] if run.curves else -1
    for first in range(0, last + 1, width):
        found = stretch_to(run, min(first + width - 1, last))
        if found.domains:
            yield found


def stretch_to(run: TrainingRun, last: int) -> Stretch:
    """Return the stretch that round ``last`` belongs to, up to that round."""
    width = stretch_rounds(run)
    first = last - last % width
    start, end = (bisect_left(run.curves, number, key=lambda row: row["round"]) for number in (first, last + 1))
    values: dict[str, list[float]] = {}
    for row in run.curves[start:end]:
        for name, own in (row["episode_accuracies"] or {}).items():
            values.setdefault(name, []).extend(own)
    return Stretch(first=first, last=last, domains={name: _estimate(own) for name, own in sorted(values.items())})


def _estimate(values: list[float]) -> Estimate:
    found = t_interval(fmean(values), stdev(values) if len(values) > 1 else None, len(values))
    assert found is not None
    return found
