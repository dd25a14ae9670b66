"""What choosing a plan takes beside tuning it: Fisher information and the decision, against one tuning."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.adaptation_grid import SELECTION, question_of
from benchmarks.adaptation_tasks import ARMS, Workbench
from tinytrain_dist.adaptation.fine_tuning import fine_tune
from tinytrain_dist.adaptation.fisher import FisherInformation, fisher_information
from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.costs.profile_files import load_profile

DEVICE = "raspberry_pi_zero_2"
LIMIT_SHARE = 0.05


@dataclass
class SelectionTimes:
    """CPU seconds of one task.

    Attributes
    ----------
    prefix
        Frozen layers below the first inspected one, for support and first view: the tuning's own, made earlier.
    fisher, decision
        Fisher information on that prefix, and the choice of the plan.
    tuning
        The plan's tuning on a task where nothing is cached.
    num_layers
        Layers of the plan.
    """

    prefix: float
    fisher: float
    decision: float
    tuning: float
    num_layers: int

    @property
    def share(self) -> float:
        """Fisher + decision as a share of the tuning."""
        return (self.fisher + self.decision) / self.tuning


def selection_times(bench: Workbench, arm: str) -> SelectionTimes:
    """Return the smallest times of the repeats, each on a fresh task."""
    return min((_once(bench, arm) for _ in range(bench.repeats)), key=lambda times: times.share)


def measure_selection(bench: Workbench) -> None:
    """Selection beside one tuning of its plan (CPU seconds)"""
    for arm in ARMS:
        found = selection_times(bench, arm)
        verdict = "reached" if found.share < LIMIT_SHARE else "MISSED"
        print(
            f"  {arm:9s} Fisher {found.fisher:.3f} + plan {found.decision:.3f} = {100 * found.share:.1f} % of a tuning"
            f" of {found.num_layers} layers ({found.tuning:.2f}); limit {100 * LIMIT_SHARE:.0f} % {verdict};"
            f" the frozen layers below, which the tuning needs too: {found.prefix:.3f}"
            f" ({100 * (found.share + found.prefix / found.tuning):.1f} % with them)"
        )


def _once(bench: Workbench, arm: str) -> SelectionTimes:
    episode = bench.episode(0)
    task = bench.task(episode, arm)
    inspected = bench.graph.last_blocks(SELECTION.inspect_blocks)
    first = min(inspected)
    prefix, _ = _timed(lambda: (task.support_state(first), task.pseudo_state(0, first)))
    fisher, information = _timed(lambda: fisher_information(task, inspected))
    profile = load_profile(DEVICE)

    def known() -> FisherInformation:
        result: FisherInformation = information
        return result

    decision, decided = _timed(lambda: METHODS["tinytrain"].decide(question_of(task, profile, known)))
    tuning, _ = _timed(lambda: fine_tune(bench.task(episode, arm), decided.plan))
    layers = len(decided.plan.updates)
    return SelectionTimes(prefix=prefix, fisher=fisher, decision=decision, tuning=tuning, num_layers=layers)


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = run()
    return time.process_time() - start, result
