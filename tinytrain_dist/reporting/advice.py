"""An advice: which device, method and budget for a set of pictures, from the stored rows of their tasks alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from tinytrain_dist.reporting import formatting, views
from tinytrain_dist.reporting.admissible import why_not
from tinytrain_dist.reporting.advice_choice import Choice, choice_of, task_accuracies
from tinytrain_dist.reporting.advice_rule import Decision, decide, gain_to_win
from tinytrain_dist.reporting.advice_sizing import TaskSizes
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.notices import extrapolation_notice, inapplicable_notices, numerics_notice
from tinytrain_dist.reporting.runner_up import contests
from tinytrain_dist.reporting.runs import RunResults, view_of_files
from tinytrain_dist.reporting.targets import smallest_devices
from tinytrain_dist.reporting.tighter_limits import LimitRange, tighter_limits
from tinytrain_dist.reporting.views import NETWORK_FREE

LIMIT_OPTIONS = {"max_ram_bytes": "--max-ram", "max_latency_ms": "--max-seconds", "max_energy_mj": "--max-joules"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: among these devices and methods, on these tasks, under these limits."""

    devices: tuple[str, ...]
    methods: tuple[str, ...]
    sizes: TaskSizes
    limits: Limits
    tolerance_points: float


@dataclass(frozen=True, kw_only=True)
class Lifted:
    """What would be advised without one of the limits, where that is another answer."""

    option: str
    choice: Choice


@dataclass(frozen=True, kw_only=True)
class DeviceLine:
    """One device: what the rule chooses there alone, or why nothing on it is admissible."""

    device: str
    choice: Choice | None
    why: str


@dataclass(frozen=True, kw_only=True)
class MethodContest:
    """The methods on the advised device: the two most accurate that fit, and a more accurate one that does not.

    ``lead_points`` is paired on the same tasks. ``blocked_by``: the resource that decides, with its smallest margin;
    ``blocked_points``: what the blocked method would gain over the advised one.
    """

    winner: str | None
    second: str | None
    lead_points: float | None
    lead_low_points: float | None
    lead_high_points: float | None
    blocked: str | None
    blocked_by: str | None
    blocked_points: float | None


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The answer; no ``advised`` means that nothing certainly fits.

    ``runner_up``: what the rule would choose without the advised device; ``runner_up_gain_points``: so much more
    accuracy would make the rule choose it (None: no accuracy would), ``runner_up_tolerance_points``: so would this
    tolerance (None: not by tolerance alone), and so would each of ``runner_up_limits``. ``smallest``: of the devices
    with something admissible within the tolerance the one with the least memory. ``methods``: those of the
    advised device.
    """

    question: Question
    advised: Choice | None
    best: Choice | None
    runner_up: Choice | None
    runner_up_gain_points: float | None
    runner_up_tolerance_points: float | None
    runner_up_limits: tuple[LimitRange, ...]
    smallest: str | None
    methods: MethodContest | None
    lifted: tuple[Lifted, ...]
    devices: tuple[DeviceLine, ...]
    raw_pixels_mean: float | None
    notices: tuple[str, ...]


def advise(run: RunResults, question: Question) -> Advice:
    """Return the advice; ``run`` may hold more tasks, devices and methods than the question is about.

    Raises
    ------
    ConfigError
        A tolerance that is none.
    """
    return _Judge(asked_part(run, question), question).advice()


def asked_part(run: RunResults, question: Question) -> RunResults:
    """Return the run with only the rows the question is about."""
    connection = duckdb.connect()
    view_of_files(connection, run.result_files())
    names = [", ".join("?" for _ in words) for words in (question.devices, question.methods)]
    connection.execute(
        "CREATE TABLE asked AS SELECT * FROM stored"
        f" WHERE device IN ({names[0]}) AND method IN ({names[1]}) AND task_index < ?",
        [*question.devices, *question.methods, question.sizes.num_tasks],
    )
    connection.execute("CREATE OR REPLACE VIEW stored AS FROM asked")
    views.create(connection)
    count = connection.execute("SELECT count(*) FROM stored").fetchone()
    return replace(run, connection=connection, num_rows=count[0] if count else 0)


class _Judge:
    """One question, its lines under the limits, and what turns a line into a choice."""

    def __init__(self, run: RunResults, question: Question) -> None:
        self.run, self.question = run, question
        self.accuracies = task_accuracies(run)
        self.rows = comparison_table(run, limits=question.limits)
        self.contests = {contest.device: contest for contest in contests(run, self.rows)}
        self.labels = adaptation_labels(self.rows)
        self.decision = self._decide(self.rows)

    def advice(self) -> Advice:
        advised, best = self.decision.advised, self.decision.best
        others = [row for row in self.rows if advised is None or row.device != advised.device]
        second = self._decide(others).advised if advised is not None else None
        lines, lifted = self._device_lines(), self._lifted()
        shown = [line.choice for line in lines if line.choice] + [freed.choice for freed in lifted]
        return Advice(
            question=self.question,
            advised=self._choice(advised),
            best=self._choice(best),
            runner_up=self._choice(second),
            **self._to_win(advised, second),
            smallest=self._smallest(),
            methods=None if advised is None else self._methods(advised),
            lifted=tuple(lifted),
            devices=tuple(lines),
            raw_pixels_mean=next((row.accuracy_mean for row in self.rows if row.method == NETWORK_FREE), None),
            notices=tuple(self._notices(shown)),
        )

    def _decide(self, rows: Sequence[ComparisonRow]) -> Decision:
        return decide(rows, tolerance_points=self.question.tolerance_points)

    def _choice(self, row: ComparisonRow | None, *, best: ComparisonRow | None = None) -> Choice | None:
        best = best or self.decision.best
        if row is None or best is None:
            return None
        label, judged = self.labels[adaptation_key(row)], self.question.sizes.num_judged
        return choice_of(self.run, row, label=label, best=best, accuracies=self.accuracies, num_judged=judged)

    def _to_win(self, advised: ComparisonRow | None, second: ComparisonRow | None) -> dict[str, Any]:
        """Return what would make the rule choose the runner-up, each tried on the rule itself."""
        if advised is None or second is None or self.decision.best is None:
            return {"runner_up_gain_points": None, "runner_up_tolerance_points": None, "runner_up_limits": ()}
        tolerance = self.question.tolerance_points
        gap = 100 * ((self.decision.best.accuracy_mean or 0.0) - (second.accuracy_mean or 0.0))
        wider = math.ceil(10 * gap - 1e-9) / 10
        wins = tolerance < wider <= 100 and decide(self.rows, tolerance_points=wider).advised is second
        return {
            "runner_up_gain_points": gain_to_win(self.rows, second, tolerance_points=tolerance),
            "runner_up_tolerance_points": wider if wins else None,
            "runner_up_limits": tuple(
                tighter_limits(self.rows, advised, second, lambda left: self._decide(left).advised)
            ),
        }

    def _smallest(self) -> str | None:
        """Return the equal device with the least memory of its own, whatever the limit."""
        if not self.decision.equals:
            return None
        return str(min(self.decision.equals, key=lambda row: (row.device_ram_bytes or 0, row.device)).device)

    def _methods(self, advised: ComparisonRow) -> MethodContest:
        contest, floor = self.contests[str(advised.device)], advised.accuracy_mean or 0.0
        rows = [row for row in self.rows if row.device == advised.device and why_not(row, self.rows)]
        better = max((row for row in rows if row.accuracy_mean), key=lambda row: row.accuracy_mean or 0, default=None)
        blocked = better if better is not None and (better.accuracy_mean or 0.0) > floor else None
        return MethodContest(
            winner=contest.winner, second=contest.runner_up, lead_points=contest.lead_points,
            lead_low_points=contest.lead_low_points, lead_high_points=contest.lead_high_points,
            blocked=self.labels[adaptation_key(blocked)] if blocked else None,
            blocked_by=why_not(blocked, self.rows) if blocked else None,
            blocked_points=100 * ((blocked.accuracy_mean or 0.0) - floor) if blocked else None,
        )  # fmt: skip

    def _device_lines(self) -> list[DeviceLine]:
        """Return one line per device asked for, the advised first, then as the rule would take them."""
        why = {answer.device: answer.why for answer in smallest_devices(self.rows, min_accuracy=None)}
        lines, left = [], list(self.rows)
        while (found := self._decide(left).advised) is not None:
            lines.append(DeviceLine(device=str(found.device), choice=self._choice(found), why=""))
            left = [row for row in left if row.device != found.device]
        listed = {line.device for line in lines}
        rest = [device for device in self.question.devices if device not in listed]
        return lines + [
            DeviceLine(device=device, choice=None, why=why.get(device, "no rows")) for device in sorted(rest)
        ]

    def _lifted(self) -> list[Lifted]:
        """Return, for each limit, what the rule chooses without it, where that is something else."""
        found, now = [], self.decision.advised
        for name, option in LIMIT_OPTIONS.items():
            if getattr(self.question.limits, name) is None:
                continue
            freed = self._decide(comparison_table(self.run, limits=replace(self.question.limits, **{name: None})))
            chosen = self._choice(freed.advised, best=freed.best)
            same = now is not None and chosen is not None and _place(chosen) == (now.device, now.method, now.variant)
            if chosen is not None and not same:
                found.append(Lifted(option=option, choice=chosen))
        return found

    def _notices(self, shown: list[Choice]) -> list[str]:
        """Return what has to be said about all choices shown, advised or not."""
        notice = numerics_notice(shown)
        failed = sum(row.num_failed for row in self.rows)
        found = [text for text in (notice, extrapolation_notice(shown)) if text] + self._capped()
        found += inapplicable_notices((row.method, row.inapplicable, row.num_inapplicable) for row in self.rows)
        if failed:
            total = sum(row.num_rows for row in self.rows)
            found.append(f"NOTE: {failed} of {total} rows failed; a choice with a failed row is not admissible.")
        return found

    def _capped(self) -> list[str]:
        """Return a note on devices whose plans, chosen for more RAM than is allowed, do not fit what is allowed.

        A plan chosen under one budget that fits a smaller one is the smaller one's plan too (``what_if_cells``): only
        those that do not fit might be others.
        """
        cap = self.question.limits.max_ram_bytes
        if cap is None:
            return []
        budgeted = {
            (row["device"], row["method"])
            for row in self.run.select("SELECT DISTINCT device, method FROM rows WHERE budget_memory_bytes IS NOT NULL")
        }
        free = comparison_table(self.run, limits=replace(self.question.limits, max_ram_bytes=None))
        fitting = {(row.device, row.method, row.variant) for row in free if row.fits_share == 1.0}
        lost = [
            row for row in self.rows
            if row.fits_share != 1.0 and (row.device, row.method, row.variant) in fitting
            and (row.device, row.method) in budgeted
        ]  # fmt: skip
        if not lost:
            return []
        devices = ", ".join(sorted({str(row.device) for row in lost}))
        methods = ", ".join(sorted({row.method for row in lost}))
        return [
            f"NOTE: plans of {methods} were chosen for the full RAM of each device; on {devices} they exceed "
            f"{formatting.memory(cap)}, and smaller ones, which were not tried, might fit."
        ]


def _place(choice: Choice) -> tuple[str, str, str]:
    return choice.device, choice.method, choice.variant
