"""What would have to change for the runner-up to win is tried on the rule itself before it is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import write_run
from test_reporting_advice import NUM_TASKS, cell, question, rows

from tinytrain_dist.reporting.advice import advise
from tinytrain_dist.reporting.advice_change import changes
from tinytrain_dist.reporting.advice_rule import decide, gain_to_win
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.runner_up import contests
from tinytrain_dist.reporting.runs import open_run

LINES = st.lists(st.tuples(st.integers(0, 400), st.one_of(st.none(), st.integers(1, 9))), min_size=2, max_size=8)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> ComparisonRow:
    run = open_run(write_run(tmp_path_factory.mktemp("win") / "run", rows()))
    return next(row for row in comparison_table(run) if row.fits_share == 1.0)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(LINES, st.integers(0, 12), st.data())
def test_the_gain_said_makes_the_rule_choose_it_and_less_does_not(
    line: ComparisonRow, cells: list[Any], tolerance: int, data: st.DataObject
) -> None:
    lines = [
        replace(line, device=f"d{place}", accuracy_mean=accuracy / 400, energy_p50_mj=energy)
        for place, (accuracy, energy) in enumerate(cells)
    ]
    place = data.draw(st.integers(0, len(lines) - 1))
    mine = lines[place]

    def advised_with(accuracy: float) -> bool:
        changed = replace(mine, accuracy_mean=accuracy)
        found = decide([*lines[:place], changed, *lines[place + 1 :]], tolerance_points=tolerance / 4).advised
        return found is changed

    gain, own = gain_to_win(lines, mine, tolerance_points=tolerance / 4), mine.accuracy_mean or 0.0
    if gain is None:
        assert not advised_with(1.0)
        return
    assert advised_with(own + gain / 100 + 1e-6)
    assert gain < 0.01 or not advised_with(own + gain / 100 - 1e-6)


def dearer_runner_up() -> list[dict[str, Any]]:
    """``middle`` is advised at 90 %; ``large``, the only other device, has 85 % and takes four times the energy."""
    found = [cell(i, "tinytrain", device) for i in range(NUM_TASKS) for device in ("middle", "large")]
    for row in found:
        row["accuracy_after"] = 0.9 if row["device"] == "middle" else 0.85
    return found


def test_a_dearer_runner_up_must_lead_by_more_than_the_tolerance(make_run: Callable[..., Path]) -> None:
    found = advise(open_run(make_run(dearer_runner_up())), question())
    assert found.advised is not None and found.advised.device == "middle"
    assert found.runner_up_gain_points == pytest.approx(6.0, abs=1e-4) and found.runner_up_tolerance_points is None
    text = " ".join(changes(found))
    assert "5.0 points below the best: it wins if it gains more than 6.0 points." in text and "--tolerance" not in text
    high = [row | {"accuracy_after": row["accuracy_after"] + 0.095} for row in dearer_runner_up()]
    never = advise(open_run(make_run(high, name="high")), question())
    assert never.runner_up_gain_points is None and "no accuracy makes it win" in " ".join(changes(never))


def uneven(**ends: float) -> list[dict[str, Any]]:
    """Equal accuracies; ``large`` takes less time by its median, but one of its tasks is slow at the upper end."""
    found = [cell(i, "tinytrain", device) for i in range(NUM_TASKS) for device in ("middle", "large")]
    for row in found:
        slow = row["device"] == "large" and row["task_index"] == 0
        time = 1000.0 if row["device"] == "large" else 3000.0
        row |= {"accuracy_after": 0.9, "latency_ms": time, "latency_low_ms": time / 2, "latency_high_ms": 2 * time}
        row["latency_high_ms"] = ends["slowest"] if slow else row["latency_high_ms"]
    return found


def test_a_range_of_limits_is_said_only_where_both_ends_hold(make_run: Callable[..., Path]) -> None:
    run = open_run(make_run(uneven(slowest=4567.0)))
    found = advise(run, question())
    assert found.advised is not None and found.advised.device == "middle"
    text = " ".join(changes(found))
    said = re.search(r"--max-seconds between ([0-9.]+) and ([0-9.]+) s", text)
    assert said is not None and float(said[1]) == 4.57 and float(said[2]) == 5.99
    for end in said.groups():
        chosen = decide(comparison_table(run, limits=Limits(max_latency_ms=1e3 * float(end)))).advised
        assert chosen is not None and chosen.device == "large", end
    below = decide(comparison_table(run, limits=Limits(max_latency_ms=4566.0))).advised
    assert below is None
    none = advise(open_run(make_run(uneven(slowest=7000.0), name="slow")), question())
    assert none.runner_up_limits == () and "--max-seconds" not in " ".join(changes(none))


def test_a_contest_on_one_device_names_limits_that_hold(make_run: Callable[..., Path]) -> None:
    slow = uneven(slowest=4567.0)
    for row in slow:
        method, accuracy = ("tinytrain", 0.9) if row["device"] == "large" else ("full_train", 0.95)
        row |= {"device": "middle", "method": method, "accuracy_after": accuracy}
    run = open_run(make_run(slow))
    contest = contests(run, comparison_table(run))[0]
    assert contest.winner == "full_train" and "a limit of time between 4.57 and 5.99 s" in contest.sentence
    for limit in (4570.0, 5990.0):
        table = comparison_table(run, limits=Limits(max_latency_ms=limit))
        assert contests(run, table)[0].winner == "tinytrain"
    late = [row | {"latency_high_ms": 7000.0 if row["task_index"] == 0 else row["latency_high_ms"]} for row in slow]
    run = open_run(make_run(late, name="late"))
    assert "limit of time" not in contests(run, comparison_table(run))[0].sentence
