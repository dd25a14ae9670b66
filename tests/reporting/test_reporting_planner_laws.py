"""Fronts, knees, limits and queues: what holds whatever the run says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_rows import MakeRun, rows_with_ram

from tinytrain_dist.foundation.errors import ConfigError, DataError
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.fleet_mix import read_mix
from tinytrain_dist.reporting.limits import millijoules, milliseconds, num_bytes
from tinytrain_dist.reporting.pareto import choices, knee, non_dominated
from tinytrain_dist.reporting.questions import what_if_question
from tinytrain_dist.reporting.queueing import DAY_MS, backlog, waiting_ms
from tinytrain_dist.reporting.runs import open_run

POINTS = st.lists(st.tuples(st.integers(1, 8).map(float), st.integers(0, 8).map(float)), max_size=25)


def dominates(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return first[0] <= second[0] and first[1] >= second[1] and first != second


@settings(max_examples=200, deadline=None)
@given(POINTS)
def test_the_front_is_mutually_non_dominated_and_every_dropped_point_is_dominated(
    points: list[tuple[float, float]],
) -> None:
    front, beaten = non_dominated(points)
    assert sorted([*front, *beaten]) == list(range(len(points)))
    assert not any(dominates(points[a], points[b]) for a in front for b in front)
    for place, by in beaten.items():
        assert by in front and dominates(points[by], points[place])


@settings(max_examples=100, deadline=None)
@given(POINTS)
def test_the_knee_is_inside_the_front_and_above_its_chord(points: list[tuple[float, float]]) -> None:
    front = [points[place] for place in non_dominated(points)[0]]
    place = knee(front)
    if place is None:
        return
    (c0, g0), (c1, g1), (cost, gain) = front[0], front[-1], front[place]
    assert c0 < cost < c1 and g0 < gain < g1
    chord = g0 + (g1 - g0) * (math.log(cost) - math.log(c0)) / (math.log(c1) - math.log(c0))
    assert gain > chord


def test_the_knee_of_a_bent_front() -> None:
    assert knee([(1.0, 0.1), (10.0, 0.8), (100.0, 0.85), (1000.0, 0.9)]) == 1
    assert knee([(1.0, 0.1), (2.0, 0.8)]) is None and knee([]) is None


def test_choices_that_are_equal_are_knees_together(make_run: MakeRun) -> None:
    costs = {"none": (1.0, 0.1), "last_layer": (10.0, 0.8), "full_train": (10.0, 0.8), "tinytrain": (1000.0, 0.9)}
    rows = [row | dict(zip(("latency_ms", "accuracy_after"), costs[row["method"]], strict=True))
            for row in rows_with_ram(devices=("raspberry-pi-zero-2",), methods=tuple(costs))]  # fmt: skip
    found = choices(comparison_table(open_run(make_run(rows))), "latency")
    assert {choice.label for choice in found if choice.knee} == {"last_layer", "full_train"}


def test_quantities_have_units() -> None:
    assert [num_bytes(t, option="x") for t in ("262144", "256KiB", "0.25 MiB", "1kB")] == [262144, 262144, 262144, 1000]
    assert [milliseconds(t, option="x") for t in ("2", "500ms", "2min")] == [2000.0, 500.0, 120_000.0]
    assert [millijoules(t, option="x") for t in ("5", "300mJ", "2kJ")] == [5000.0, 300.0, 2e6]
    for text in ("", "-5", "0", "5 parsec", "KiB", "nan", "1e999"):
        with pytest.raises(ConfigError, match="--max-ram"):
            num_bytes(text, option="--max-ram")


def test_what_if_words() -> None:
    found = what_if_question(["device=a,b", "max_ram=256KiB", "max_seconds=2"])
    assert found.devices == ("a", "b") and found.max_ram_bytes == 262144 and found.limits.max_latency_ms == 2000.0
    assert found.changes_devices and not what_if_question(["max_joules=1"]).changes_devices
    for words, text in ((["devise=a"], "did you mean 'device'"), (["device"], "device=VALUE"), ([], "KEY=VALUE")):
        with pytest.raises(ConfigError, match=text):
            what_if_question(words)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=30))
def test_waiting_is_lindleys_recursion(steps: list[tuple[float, float]]) -> None:
    served, gaps = (np.array(column) for column in zip(*steps, strict=True))
    work, expected = 0.0, []
    for s, g in steps:
        expected.append(work)
        work = max(0.0, work + s - g)
    assert waiting_ms(served, gaps) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("busy", [0.3, 0.7])
def test_the_queue_has_the_mean_wait_of_pollaczek_and_khinchine(busy: float) -> None:
    for times in ([1000.0], [500.0, 1500.0], np.random.default_rng(0).exponential(1000.0, 20_000).tolist()):
        mean, square = float(np.mean(times)), float(np.mean(np.square(times)))
        rate = busy / mean
        found = backlog(times, arrivals_per_day=rate * DAY_MS, seed="x")
        assert found.utilisation == pytest.approx(busy)
        assert found.mean_ms == pytest.approx(rate * square / 2 / (1 - busy), rel=0.08)


def test_the_p99_of_m_m_1() -> None:
    """P(work > x) = rho exp(-(mu - lambda) x) for exponential service."""
    times, busy = np.random.default_rng(0).exponential(1000.0, 50_000).tolist(), 0.5
    mean = float(np.mean(times))
    found = backlog(times, arrivals_per_day=busy / mean * DAY_MS, seed="x")
    assert found.p99_ms == pytest.approx(math.log(busy / 0.01) * mean / (1 - busy), rel=0.06)


def test_a_queue_that_falls_behind_and_one_that_idles() -> None:
    full = backlog([1000.0], arrivals_per_day=86_400.0, seed="x")
    assert full.utilisation == pytest.approx(1.0) and full.p99_ms is None
    assert backlog([1000.0], arrivals_per_day=0.0, seed="x").p99_ms == 0.0
    assert backlog([5.0], arrivals_per_day=9e6, seed="y") == backlog([5.0], arrivals_per_day=9e6, seed="y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("device\na\n", "column 'count' is missing"),
        ("device,count,batery_wh\na,1,2\n", "did you mean 'battery_wh'"),
        ("device,count\na,0\n", "line 2: column 'count': found '0'"),
        ("device,count\na,1.5\n", "found '1.5'"),
        ("device,count\n,1\n", "column 'device': empty"),
        ("device,count,battery_wh\na,1,0\n", "column 'battery_wh': found '0'"),
        ("device,count,battery_wh\na,1,nan\n", "column 'battery_wh': found 'nan'"),
        ("device,count\na,1,9\n", "more cells than"),
        ("device,count\n", "no line below the header"),
    ],
)
def test_a_bad_mix_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mix.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_mix(path, adaptations_per_day=1.0)


def test_a_mix_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mix.csv"
    path.write_text("﻿device, count,adaptations_per_day,battery_wh\nstm32f746,10,,3.5\njetson_nano,2,7,\n")
    first, second = read_mix(path, adaptations_per_day=4.0)
    assert (first.count, first.adaptations_per_day, first.battery_wh) == (10, 4.0, 3.5)
    assert (second.adaptations_per_day, second.battery_wh, second.method) == (7.0, None, None)
    with pytest.raises(DataError, match="cannot be read"):
        read_mix(tmp_path / "nowhere.csv", adaptations_per_day=1.0)
