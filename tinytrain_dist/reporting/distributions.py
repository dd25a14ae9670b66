"""How accuracies spread over the tasks of a domain: quartiles for charts, counts for histograms."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.reporting.comparison import ADAPTATION, method_rank
from tinytrain_dist.reporting.runs import RunResults

NUM_BINS = 20


@dataclass(frozen=True, kw_only=True)
class Box:
    """Five numbers and the mean of the accuracies (shares) of one adaptation on one domain and device.

    ``summary`` is (first quartile, median, third quartile, smallest, largest, mean).
    """

    device: str | None
    domain: str
    key: tuple[str | None, ...]
    num: int
    summary: tuple[float, float, float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of tasks in ``NUM_BINS`` equal bins of accuracy from 0 to 1 (a task averaged over its devices)."""

    domain: str
    key: tuple[str | None, ...]
    counts: tuple[int, ...]


def boxes(run: RunResults) -> list[Box]:
    """Return the spread per device, domain and adaptation over the finished tasks."""
    group = f"device, domain, {', '.join(ADAPTATION)}"
    found = run.select(
        f"SELECT {group}, count(*) AS num, quantile_cont(accuracy_after, [0.25, 0.5, 0.75]) AS quartiles,"
        " min(accuracy_after) AS low, max(accuracy_after) AS high,"
        f" avg(accuracy_after ORDER BY accuracy_after) AS mean FROM rows WHERE ok GROUP BY ALL ORDER BY {group}"
    )
    return [
        Box(
            device=row["device"],
            domain=row["domain"],
            key=tuple(row[name] for name in ADAPTATION),
            num=row["num"],
            summary=(*row["quartiles"], row["low"], row["high"], row["mean"]),
        )
        for row in found
    ]


def histograms(run: RunResults) -> list[Histogram]:
    """Return the histogram of accuracies per domain and adaptation over the finished tasks."""
    group = f"domain, {', '.join(ADAPTATION)}"
    found = run.select(
        f"WITH tasks AS (SELECT {group}, task_id, avg(accuracy_after ORDER BY accuracy_after) AS share"
        f" FROM rows WHERE ok GROUP BY ALL)"
        f" SELECT {group}, least(floor(share * {NUM_BINS}), {NUM_BINS - 1})::INTEGER AS place, count(*) AS num"
        " FROM tasks GROUP BY ALL"
    )
    counts: dict[tuple[str, tuple[str | None, ...]], list[int]] = {}
    for row in found:
        key = (row["domain"], tuple(row[name] for name in ADAPTATION))
        counts.setdefault(key, [0] * NUM_BINS)[row["place"]] = row["num"]
    ordered = sorted(counts, key=lambda item: (item[0], method_rank(str(item[1][3])), str(item[1])))
    return [Histogram(domain=domain, key=key, counts=tuple(counts[domain, key])) for domain, key in ordered]
