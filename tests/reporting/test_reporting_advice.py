"""The advice: its rule, its laws under further limits, what it says about itself; on synthetic rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel
from synthetic_run import Row, failed_row, result_row, write_run

from tinytrain_dist.foundation.errors import ConfigError, DataError
from tinytrain_dist.reporting.admissible import admissible
from tinytrain_dist.reporting.advice import Advice, Question, advise
from tinytrain_dist.reporting.advice_choice import paired_loss
from tinytrain_dist.reporting.advice_rule import check_tolerance, decide
from tinytrain_dist.reporting.advice_sizing import (
    TaskSizes,
    needs,
    new_pictures_interval,
    pictures_for,
    size_tasks,
    tasks_for,
)
from tinytrain_dist.reporting.advice_text import answer, certainty, document, render_advice
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.runs import RunResults, open_run

MACS = 10**7
NUM_TASKS = 8
DEVICES = ("tiny", "middle", "large")
METHODS = ("none", "full_train", "tinytrain")
ACCURACY = {"none": 0.60, "full_train": 0.90, "tinytrain": 0.895}
ENERGY_MJ = {"tiny": 1_000.0, "middle": 2_000.0, "large": 8_000.0}
WORK = {"none": 0.1, "full_train": 3.0, "tinytrain": 1.0}
PEAK = {"none": 100_000, "full_train": 4_000_000, "tinytrain": 500_000}
RAM = {"tiny": 300_000, "middle": 1_000_000, "large": 10**9}


def rows(**changed: Any) -> list[Row]:
    """Three devices of growing memory and hunger, three methods of growing accuracy and cost; tasks differ alike."""
    return [
        cell(index, method, device, **changed) for index in range(NUM_TASKS) for method in METHODS for device in DEVICES
    ]


def cell(index: int, method: str, device: str, **changed: Any) -> Row:
    energy, shift = ENERGY_MJ[device] * WORK[method], 0.01 * (index % 4)
    peak, fits = PEAK[method], "yes" if PEAK[method] <= RAM[device] else "no"
    return result_row(
        task_id=f"pictures-1/all/fixed-3w5s10q/s0/{index}", task_index=index, method=method, variant=f"{method}-1",
        device=device, accuracy_before=ACCURACY["none"] + shift, accuracy_after=ACCURACY[method] + shift,
        energy_mj=energy, energy_low_mj=energy / 2, energy_high_mj=energy * 2, latency_ms=energy, fits=fits,
        latency_low_ms=energy / 2, latency_high_ms=energy * 2, peak_bytes=peak, peak_low_bytes=peak,
        peak_high_bytes=peak, ram_margin_bytes=RAM[device] - peak, updated_weights=1000, plan_layers=[1, 2],
        iterations=0 if method == "none" else 40,
        **({"budget_memory_bytes": 1_000_000, "budget_backward_macs": 10**6} if method == "tinytrain" else {}),
    ) | changed  # fmt: skip


def sizes(**changed: Any) -> TaskSizes:
    plain = {
        "way": 3, "shot": 5, "query": 10, "num_tasks": NUM_TASKS, "num_classes": 3, "num_found": 3,
        "num_pictures": 60, "smallest_class": 20,
    }  # fmt: skip
    return TaskSizes(**plain | changed)


def question(**changed: Any) -> Question:
    plain = {
        "devices": DEVICES, "methods": METHODS, "sizes": sizes(), "limits": Limits(), "tolerance_points": 1.0,
    }  # fmt: skip
    return Question(**plain | changed)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    return open_run(write_run(tmp_path_factory.mktemp("advice") / "run", rows()))


def place(advice: Advice) -> tuple[str, str] | None:
    return None if advice.advised is None else (advice.advised.device, advice.advised.method)


def test_the_cheapest_within_the_tolerance_is_advised(run: RunResults) -> None:
    found = advise(run, question())
    assert found.best is not None and found.best.method == "full_train" and found.best.accuracy_mean > 0.9
    assert place(found) == ("middle", "tinytrain")
    assert found.advised is not None and found.advised.loss_points == pytest.approx(0.5)
    assert found.advised.gain_points == pytest.approx(29.5)
    assert found.runner_up is not None and (found.runner_up.device, found.runner_up.method) == ("large", "tinytrain")
    assert [line.device for line in found.devices] == ["middle", "large", "tiny"]
    assert found.smallest == "middle"


def test_without_tolerance_the_best_is_advised(run: RunResults) -> None:
    assert place(advise(run, question(tolerance_points=0.0))) == ("large", "full_train")
    with pytest.raises(ConfigError, match="--tolerance"):
        check_tolerance(-1.0)


def test_a_limit_must_hold_for_the_upper_end_of_the_price(run: RunResults) -> None:
    limits = Limits(max_energy_mj=3_999.0)  # tinytrain on middle: 2 J, at most 4 J
    found = advise(run, question(limits=limits))
    assert place(found) == ("tiny", "none")
    assert [(lifted.option, lifted.choice.device) for lifted in found.lifted] == [("--max-joules", "middle")]
    assert "Without --max-joules: middle with tinytrain" in render_advice(found)
    assert place(advise(run, question(limits=Limits(max_energy_mj=4_000.0)))) == ("middle", "tinytrain")


def test_the_methods_of_the_advised_device_and_what_blocks_a_better_one(run: RunResults) -> None:
    methods = advise(run, question()).methods
    assert methods is not None and (methods.winner, methods.second) == ("tinytrain", "none")
    assert methods.lead_points == pytest.approx(29.5) and methods.blocked == "full_train"
    assert methods.blocked_points == pytest.approx(0.5) and methods.blocked_by == "ram -2.86 MiB"


def test_nothing_that_fits_is_an_answer_with_reasons(run: RunResults) -> None:
    found = advise(run, question(limits=Limits(max_ram_bytes=50_000)))
    assert found.advised is None and found.best is None and found.runner_up is None
    assert "No device certainly fits" in answer(found)[0] and "ram" in answer(found)[0]
    assert json.dumps(document(found), allow_nan=False)


def test_only_what_is_asked_is_judged(run: RunResults) -> None:
    fewer = advise(run, question(devices=("large",), methods=("none", "tinytrain"), sizes=sizes(num_tasks=4)))
    assert place(fewer) == ("large", "tinytrain") and fewer.advised is not None and fewer.advised.num_tasks == 4
    assert fewer.runner_up is None


def test_a_failed_or_missing_task_is_not_advised(make_run: Callable[..., Path]) -> None:
    def tiny(row: Row) -> bool:
        return bool(row["device"] == "middle" and row["method"] == "tinytrain" and row["task_index"] == 3)

    missing = [row for row in rows() if not tiny(row)]
    keys = ("task_id", "task_index", "device", "method", "variant", "domain")
    failed = [failed_row(**{key: row[key] for key in keys}) if tiny(row) else row for row in rows()]
    for name, stored in (("missing", missing), ("failed", failed)):
        found = advise(open_run(make_run(stored, name=name)), question())
        assert place(found) == ("large", "tinytrain"), name
    assert "failed" in render_advice(found)


def test_an_uncertain_fit_is_not_advised(make_run: Callable[..., Path]) -> None:
    doubtful = [row | {"peak_high_bytes": 2_000_000, "fits": "uncertain"} if row["device"] == "middle" and
                row["method"] == "tinytrain" else row for row in rows()]  # fmt: skip
    found = advise(open_run(make_run(doubtful)), question())
    assert place(found) == ("large", "tinytrain")


def test_the_text_says_what_it_rests_on(run: RunResults) -> None:
    found = advise(run, question())
    text = " ".join(render_advice(found).split())
    for words in (
        "Take middle with tinytrain: accuracy 91.0 %", "8 tasks were drawn from 60 pictures of 3 classes",
        "nothing beyond these pictures", "For new pictures of these classes", "within 977 KiB and 1.00 million",
        "Runner-up: large with tinytrain", "no measurement of training on this device stands",
        "accuracy is computed in fp32", "p95 of time and energy over tasks takes 59 tasks",
    ):  # fmt: skip
        assert words in text, words
    assert found.advised is not None
    assert len(certainty(found)) == 7


def test_hostile_names_do_not_steer_a_terminal(make_run: Callable[..., Path]) -> None:
    evil = "\x1b[31m<script>"
    stored = [row | {"device": evil if row["device"] == "middle" else row["device"]} for row in rows()]
    text = render_advice(advise(open_run(make_run(stored)), question(devices=("tiny", evil, "large"))))
    assert "<script>" in text and "\x1b" not in text


@pytest.mark.slow
@settings(max_examples=20)
@given(
    st.tuples(*[st.one_of(st.none(), st.floats(200.0, 60_000.0)) for _ in range(2)]),
    st.one_of(st.none(), st.integers(90_000, 5_000_000)),
    st.floats(0.0, 3.0),
)
def test_what_is_advised_meets_the_limits(
    run: RunResults, prices: tuple[float | None, float | None], ram: int | None, tolerance: float
) -> None:
    limits = Limits(max_latency_ms=prices[0], max_energy_mj=prices[1], max_ram_bytes=ram)
    found = decide(comparison_table(run, limits=limits), tolerance_points=tolerance)
    for chosen in (found.advised, found.best):
        stored = [r for r in rows() if chosen and (r["device"], r["method"]) == (chosen.device, chosen.method)]
        assert len(stored) == (NUM_TASKS if chosen else 0)
        for row in stored:
            assert row["fits"] == "yes"
            assert prices[0] is None or row["latency_high_ms"] <= prices[0]
            assert prices[1] is None or row["energy_high_mj"] <= prices[1]
            assert ram is None or row["peak_high_bytes"] <= ram


ROWS = st.lists(
    st.tuples(st.integers(0, 200), st.one_of(st.none(), st.integers(1, 30)), st.integers(1, 5)), min_size=1, max_size=12
)


@pytest.fixture(scope="module")
def line(run: RunResults) -> ComparisonRow:
    return next(row for row in comparison_table(run) if row.fits_share == 1.0)


@settings(max_examples=100)
@given(ROWS, st.data(), st.floats(0.0, 5.0))
def test_further_limits_never_give_a_better_answer(
    line: ComparisonRow, cells: list[Any], data: st.DataObject, tolerance: float
) -> None:
    lines = [
        replace(line, device=f"d{number}", accuracy_mean=accuracy / 200, energy_p50_mj=energy, latency_p50_ms=time)
        for number, (accuracy, energy, time) in enumerate(cells)
    ]
    left = data.draw(st.lists(st.sampled_from(lines), unique_by=lambda row: row.device))
    free, bound = (decide(own, tolerance_points=tolerance) for own in (lines, left))
    if bound.advised is None or bound.best is None:
        assert not left
        return
    assert free.best is not None and free.advised is not None
    assert (free.best.accuracy_mean or 0) >= (bound.best.accuracy_mean or 0)
    more = (bound.advised.accuracy_mean or 0) - (free.advised.accuracy_mean or 0)
    ours, theirs = (np.inf if row.energy_p50_mj is None else row.energy_p50_mj for row in (free.advised, bound.advised))
    assert not (more >= 0 and theirs < ours), "as accurate and cheaper"
    if free.advised in left and free.best in left:
        assert bound.advised == free.advised


def test_lines_are_admissible_on_the_same_tasks_only(run: RunResults) -> None:
    found = admissible(comparison_table(run))
    assert {(row.device, row.method) for row in found} == {
        (d, m) for d in DEVICES for m in METHODS if PEAK[m] <= RAM[d]
    }
    assert decide([]).advised is None


def test_the_loss_is_paired_as_scipy_pairs_it() -> None:
    random = np.random.default_rng(3)
    first, second = random.uniform(0.5, 1.0, 12), random.uniform(0.4, 0.9, 12)
    found = paired_loss({str(i): v for i, v in enumerate(first)}, {str(i): v for i, v in enumerate(second)})
    interval = ttest_rel(100 * first, 100 * second).confidence_interval(0.95)
    assert found.low == pytest.approx(interval.low) and found.high == pytest.approx(interval.high)


@pytest.mark.parametrize(("right", "num"), [(0, 5), (3, 7), (180, 200), (200, 200)])
def test_the_interval_for_new_pictures_is_wilsons(right: int, num: int) -> None:
    expected = binomtest(right, num).proportion_ci(0.95, method="wilson")
    low, high = new_pictures_interval(right / num, num)
    assert low == pytest.approx(expected.low, abs=1e-9) and high == pytest.approx(expected.high, abs=1e-9)


def test_sizes_follow_from_the_pictures() -> None:
    ten = size_tasks([20] * 10, forward_macs=MACS, iterations=40)
    assert (ten.way, ten.shot, ten.query, ten.num_pictures) == (10, 5, 10, 200)
    assert 15 <= ten.num_tasks <= 25
    assert size_tasks([20] * 80, forward_macs=MACS, iterations=40).way == 50
    assert size_tasks([3, 3], forward_macs=MACS, iterations=40).shot == 1
    assert size_tasks([20] * 3, forward_macs=MACS, iterations=0).num_tasks == 59
    odd = size_tasks([20, 20, 1, 8], forward_macs=MACS, iterations=40)
    assert (odd.way, odd.num_found, odd.shot, odd.query) == (3, 4, 4, 4)
    assert "1 of 4 classes are left out: a class needs 2 pictures, 1 to learn from and 1 to be judged" in needs(odd)[0]
    assert "since the smallest class has 8 pictures" in needs(odd)[1]


def test_what_the_user_fixed_is_not_blamed_on_the_pictures() -> None:
    one = " ".join(needs(size_tasks([20] * 10, forward_macs=MACS, iterations=40, shot=1)))
    assert "Learning from 1 per class, as --shot asks" in one and "smallest class" not in one
    eight = " ".join(needs(size_tasks([20, 20, 8], forward_macs=MACS, iterations=40, shot=8)))
    assert "a class needs 9 pictures, 8 to learn from and 1 to be judged on" in eight and "Learning" not in eight


def test_new_pictures_are_judged_by_the_pictures_that_were(run: RunResults) -> None:
    few, all_ = (advise(run, question(sizes=sizes(judged=judged))) for judged in (20, 60))
    assert few.advised is not None and all_.advised is not None
    expected = new_pictures_interval(few.advised.accuracy_mean, 20)
    assert (few.advised.new_pictures_low, few.advised.new_pictures_high) == expected
    assert expected[0] < all_.advised.new_pictures_low
    assert "as if each of the 20 pictures judged had been judged once" in " ".join(certainty(few))


def test_an_unknown_energy_is_not_said_to_be_larger(make_run: Callable[..., Path]) -> None:
    def with_energy(known: set[str]) -> Path:
        none = dict.fromkeys(("energy_mj", "energy_low_mj", "energy_high_mj"))
        return make_run([row if row["device"] in known else row | none for row in rows()], name="-".join(known) or "x")

    some = advise(open_run(with_energy({"large"})), question(tolerance_points=0.0))
    assert "nothing of known energy within 0 points takes less energy" in answer(some)[2]
    none = advise(open_run(with_energy(set())), question(tolerance_points=0.0))
    assert "nothing within 0 points takes less time, and no energy there is known" in answer(none)[2]


@pytest.mark.parametrize("counts", [[], [40], [40, 1], [1, 1, 1]])
def test_too_few_pictures_say_how_many_are_needed(counts: list[int]) -> None:
    with pytest.raises(DataError, match=r"needed: two such classes .* 10 pictures in each .* about 385 pictures"):
        size_tasks(counts, forward_macs=MACS, iterations=40)


@pytest.mark.parametrize("option", ["shot", "num_tasks"])
def test_numbers_below_one_name_the_option(option: str) -> None:
    with pytest.raises(ConfigError, match="allowed: 1 or more"):
        size_tasks([20] * 3, forward_macs=MACS, iterations=40, **{option: 0})


@given(st.floats(0.01, 0.3), st.floats(0.05, 0.95))
def test_the_pictures_named_reach_the_half_width(half: float, share: float) -> None:
    num = pictures_for(half, share)
    assert 1.96 * np.sqrt(share * (1 - share) / num) <= half * 1.001
    assert num == 1 or 1.96 * np.sqrt(share * (1 - share) / (num - 1)) > half * 0.999


def test_four_times_the_tasks_halve_the_interval() -> None:
    assert tasks_for(0.01, low=0.80, high=0.84, num_tasks=20) == 80


def test_extrapolated_prices_are_said_to_be(make_run: Callable[..., Path]) -> None:
    stored = [row | {"extrapolated": "ops" if row["task_index"] < 2 else ""} for row in rows()]
    found = advise(open_run(make_run(stored)), question())
    text = " ".join(render_advice(found).split())
    assert "Extrapolated: ops of 25 % of the tasks lie outside what was measured on this device" in text
    assert "Time and energy are estimates: no measurement of training on this device" in text
    assert "NOTE: 'extrapolated': on large, middle, tiny, ops of 25 % of the tasks" in text


def test_a_limit_of_ram_names_no_budget_above_it_and_says_what_was_not_tried(make_run: Callable[..., Path]) -> None:
    large = [row | {"peak_bytes": 900_000, "peak_low_bytes": 900_000, "peak_high_bytes": 900_000}
             if row["device"] == "large" and row["method"] == "tinytrain" else row for row in rows()]  # fmt: skip
    run = open_run(make_run(large))
    found = advise(run, question(limits=Limits(max_ram_bytes=600_000)))
    assert found.advised is not None and (found.advised.device, found.advised.method) == ("middle", "tinytrain")
    text = " ".join(render_advice(found).split())
    assert "what to update, within 586 KiB and 1.00 million" in text and "977 KiB" not in text
    assert "586 KiB RAM allowed" in text
    assert "NOTE: plans of tinytrain were chosen for the full RAM of each device; on large they exceed 586 KiB" in text
    assert "chosen for the full RAM" not in render_advice(advise(run, question()))


def test_arithmetic_is_said_of_every_choice_shown(make_run: Callable[..., Path]) -> None:
    stored = [row | {"price_numerics": "int8" if row["device"] == "tiny" else "fp32"} for row in rows()]
    found = advise(open_run(make_run(stored)), question())
    assert found.advised is not None and found.advised.device == "middle" and not found.advised.numerics_differ
    assert any("priced in int8 on tiny" in notice for notice in found.notices)
