"""Accuracies of our arms on the same tasks: their paired differences with 95 % intervals, in points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import t

from benchmarks.adaptation_tasks import ARMS, TARGET_DOMAINS, Workbench

LIMIT = 0.5
"""The interval of a difference is to lie within so many points of 0."""


def measure_accuracy(bench: Workbench) -> None:
    """Accuracy after tuning by arm, paired on tasks of all target domains (target: intervals within +-0.5 points)"""
    if bench.accuracy_tasks < 2:
        print("  not measured; --accuracy-tasks N")
        return
    for name in bench.accuracy_plans:
        found: dict[str, list[dict[str, float]]] = {domain: [] for domain in TARGET_DOMAINS}
        for domain, accuracies in _accuracies(bench, name):
            found[domain].append(accuracies)
        together = [task for tasks in found.values() for task in tasks]
        means = ", ".join(f"{arm} {np.mean([task[arm] for task in together]):.2f} %" for arm in ARMS)
        print(f"  {name}: {len(together)} tasks of {len(found)} domains; {means}")
        for first, second in combinations(ARMS, 2):
            print(f"    {second} - {first}: {_difference(together, first, second, judged=True)}")
            for domain, tasks in found.items():
                if len(tasks) > 1:
                    print(f"      {domain:10s} {_difference(tasks, first, second)}")


def _accuracies(bench: Workbench, plan: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the domain and the accuracies by arm, in per cent, of one task after the other; the domains in turn."""
    for index in range(bench.accuracy_tasks):
        domain = TARGET_DOMAINS[index % len(TARGET_DOMAINS)]
        episode = bench.episode(index // len(TARGET_DOMAINS), domain=domain)
        found = {arm: bench.tune(arm, episode, bench.plans[plan]).accuracy_after for arm in ARMS}
        diverged = [arm for arm, accuracy in found.items() if accuracy is None]
        if diverged:
            print(f"    {domain} {index // len(TARGET_DOMAINS)}: left out, diverged in {', '.join(diverged)}")
            continue
        yield domain, {arm: 100 * accuracy for arm, accuracy in found.items() if accuracy is not None}


def _difference(tasks: Sequence[dict[str, float]], first: str, second: str, *, judged: bool = False) -> str:
    gaps = [task[second] - task[first] for task in tasks]
    half = float(t.ppf(0.975, len(gaps) - 1) * np.std(gaps, ddof=1) / np.sqrt(len(gaps)))
    low, high = np.mean(gaps) - half, np.mean(gaps) + half
    verdict = " reached" if low >= -LIMIT and high <= LIMIT else " MISSED or too few tasks"
    words = f"{np.mean(gaps):+.2f} points, 95 % interval {low:+.2f} to {high:+.2f} over {len(gaps)} tasks"
    return words + (f"; target {LIMIT:g}{verdict}" if judged else "")
