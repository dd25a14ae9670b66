"""How accuracies spread over the tasks of a domain: counts of tasks in equal bins of accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.reporting.comparison import ADAPTATION, method_rank
from tinytrain_dist.reporting.runs import RunResults

NUM_BINS = 20


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of tasks in ``NUM_BINS`` equal bins of accuracy from 0 to 1.

    ``device`` is None where a task's accuracies are averaged over its devices, or where the method knows no device.
    """

    domain: str
    key: tuple[str | None, ...]
    counts: tuple[int, ...]
    device: str | None = None


def histograms(run: RunResults) -> list[Histogram]:
    """Return the histogram per domain and adaptation over the finished tasks, each averaged over its devices."""
    group = f"domain, {', '.join(ADAPTATION)}"
    tasks = (
        f"SELECT {group}, task_id, avg(accuracy_after ORDER BY accuracy_after) AS share FROM rows WHERE ok GROUP BY ALL"
    )
    return _counted(run, tasks, "NULL")


def device_histograms(run: RunResults) -> list[Histogram]:
    """Return the histogram per domain, device and adaptation over the finished tasks."""
    return _counted(run, "SELECT *, accuracy_after AS share FROM rows WHERE ok", "device")


def _counted(run: RunResults, tasks: str, device: str) -> list[Histogram]:
    found = run.select(
        f"SELECT {device} AS device, domain, {', '.join(ADAPTATION)},"
        f" least(floor(share * {NUM_BINS}), {NUM_BINS - 1})::INTEGER AS place, count(*) AS num"
        f" FROM ({tasks}) GROUP BY ALL"
    )
    counts: dict[tuple[str, str | None, tuple[str | None, ...]], list[int]] = {}
    for row in found:
        key = (row["domain"], row["device"], tuple(row[name] for name in ADAPTATION))
        counts.setdefault(key, [0] * NUM_BINS)[row["place"]] = row["num"]
    ordered = sorted(counts, key=lambda item: (item[0], item[1] or "", method_rank(str(item[2][3])), str(item[2])))
    return [
        Histogram(domain=domain, device=device, key=key, counts=tuple(counts[domain, device, key]))
        for domain, device, key in ordered
    ]
