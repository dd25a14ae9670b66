"""How far behind a device falls that adapts to one task after another: the queue M/G/1, simulated with a fixed seed.

Tasks arrive at random (Poisson), one is served at a time, first come first served; service times are drawn from the
run's own tasks. The work found by an arrival is the work at any time (Poisson arrivals see time averages).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.foundation.seeding import generator_of

NUM_ARRIVALS = 200_000
WARM_UP = 20_000
DAY_MS = 86_400_000.0


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Share of the time a device is busy, and how much unfinished work is exceeded 1 % of the time.

    ``p99_ms`` is None where the device falls behind for ever (``utilisation`` of 1 or more).
    """

    utilisation: float
    mean_ms: float | None
    p99_ms: float | None


def backlog(service_ms: Sequence[float], *, arrivals_per_day: float, seed: str) -> Backlog:
    """Return the backlog of one device.

    Parameters
    ----------
    service_ms
        Time of one adaptation, one value per task of the run, milliseconds.
    arrivals_per_day
        Mean number of adaptations asked for per day.
    seed
        Names what is simulated: the same name gives the same draws, so results do not vary from call to call.
    """
    times = np.sort(np.asarray(service_ms, np.float64))
    rate = arrivals_per_day / DAY_MS
    utilisation = float(times.mean()) * rate
    if utilisation >= 1.0:
        return Backlog(utilisation=utilisation, mean_ms=None, p99_ms=None)
    if rate == 0.0:
        return Backlog(utilisation=0.0, mean_ms=0.0, p99_ms=0.0)
    random = generator_of("backlog", seed, arrivals_per_day)
    served = times[random.integers(0, len(times), NUM_ARRIVALS)]
    gaps = random.exponential(1.0 / rate, NUM_ARRIVALS)
    work = waiting_ms(served, gaps)[WARM_UP:]
    return Backlog(utilisation=utilisation, mean_ms=float(work.mean()), p99_ms=float(np.quantile(work, 0.99)))


def waiting_ms(served: NDArray[np.float64], gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unfinished work each arrival finds: Lindley's recursion w' = max(0, w + served - gap).

    ``gaps[i]`` passes between arrival i and the next. Unrolled: the walk minus its smallest value so far.
    """
    walk = np.concatenate([[0.0], np.cumsum(served - gaps)[:-1]])
    found: NDArray[np.float64] = walk - np.minimum.accumulate(walk)
    return found
