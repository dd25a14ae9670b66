"""Units that share the steps of their tunings, as a GPU wants them: plans of one kind are tuned together."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence

import torch

from tinytrain_dist.adaptation.joint_tuning import kind_of
from tinytrain_dist.execution.executor import describe
from tinytrain_dist.simulation.request import Cells
from tinytrain_dist.simulation.unit import Unit, UnitResult, Wanted, check_machine

Member = tuple[Unit, Wanted]


def run_together(units: Sequence[Unit], cells: Cells, *, together: int) -> list[UnitResult]:
    """Return what ``Unit.run`` returns for each unit, up to the last digits of a number.

    Parameters
    ----------
    together
        Units whose steps are made together at most.
    """
    if together == 1 or len(units) == 1:
        return [unit.run(cells) for unit in units]
    decided = [unit.decide(cells) for unit in units]
    kinds: dict[tuple[int, str, Hashable], list[Member]] = {}
    for unit, decisions in zip(units, decided, strict=True):
        for wanted in unit.wanted(cells, decisions):
            kinds.setdefault(_kind(unit, wanted), []).append((unit, wanted))
    for _, members in sorted(kinds.items(), key=lambda item: item[0][:2]):  # earliest cut first, as in one unit
        for start in range(0, len(members), together):
            _tune(members[start : start + together])
    return [unit.result(cells, decisions) for unit, decisions in zip(units, decided, strict=True)]


def _kind(unit: Unit, wanted: Wanted) -> tuple[int, str, Hashable]:
    """Return what tunings that are made together have in common."""
    try:
        kind: Hashable = kind_of(unit.task, wanted.plan) if wanted.method.can_join else unit.spec.task_id
    except Exception as error:  # a task that cannot be loaded is tuned alone: there its failure becomes rows
        check_machine(error)
        kind = unit.spec.task_id
    return wanted.cut, wanted.method.tuner, kind


def _tune(members: Sequence[Member]) -> None:
    """Tune the plans of one kind together; where that fails each alone, so that the failure is the right task's."""
    if len(members) > 1:
        method, start = members[0][1].method, time.perf_counter()
        try:
            outcomes = method.adapt_together([unit.task for unit, _ in members], [wanted.plan for _, wanted in members])
        except Exception as error:
            if not isinstance(error, torch.OutOfMemoryError):  # of the group: a task alone may fit
                check_machine(error)
            for unit, _ in members:
                unit.tuned_alone = f"{len(members)} tasks of {method.name}: {describe(error)}"
        else:
            host_ms = 1e3 * (time.perf_counter() - start) / len(members)
            for (unit, wanted), outcome in zip(members, outcomes, strict=True):
                unit.keep(wanted, outcome, host_ms=host_ms)
            return
    for unit, wanted in members:
        unit.tune(wanted)
