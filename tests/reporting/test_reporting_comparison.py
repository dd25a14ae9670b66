from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic_run import METHODS, Row, failed_row, grid_rows, result_row, write_run

from tinytrain_dist.reporting.cells import accuracy_cells
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.intervals import t_interval
from tinytrain_dist.reporting.labels import adaptation_labels
from tinytrain_dist.reporting.quantiles import MIN_TASKS_P95
from tinytrain_dist.reporting.runs import open_run

MakeRun = Callable[..., Path]


def tasks(accuracies: list[float], **values: Any) -> list[Row]:
    """Rows of one method, one task per accuracy."""
    return [result_row(task_id=f"t{i}", task_index=i, accuracy_after=a, **values) for i, a in enumerate(accuracies)]


def only(rows: list[ComparisonRow], method: str, **values: Any) -> ComparisonRow:
    """The single row of a method."""
    found = [r for r in rows if r.method == method and all(getattr(r, k) == v for k, v in values.items())]
    assert len(found) == 1, found
    return found[0]


def test_interval_is_students_t() -> None:
    values = np.array([0.1, 0.4, 0.35, 0.8])
    found = t_interval(values.mean(), values.std(ddof=1), 4)
    expected = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert found is not None
    assert (found.low, found.high) == pytest.approx(expected)
    assert t_interval(None, None, 0) is None
    single = t_interval(0.5, None, 1)
    assert single is not None and single.low is None and single.high is None


def test_59_is_the_smallest_number_that_bounds_p95() -> None:
    assert 0.95**MIN_TASKS_P95 < 0.05 <= 0.95 ** (MIN_TASKS_P95 - 1)


def test_gain_is_paired_points_with_t_interval(make_run: MakeRun) -> None:
    before, after = [0.2, 0.5, 0.9, 0.4], [0.3, 0.55, 0.93, 0.5]
    run = open_run(make_run(tasks(before) + tasks(after, method="tinytrain", plan_status="ok")))
    row = only(comparison_table(run, by="device"), "tinytrain")
    gains = 100 * (np.array(after) - np.array(before))
    low, high = stats.t.interval(0.95, 3, loc=gains.mean(), scale=stats.sem(gains))
    assert (row.gain_points, row.gain_low_points, row.gain_high_points) == pytest.approx((gains.mean(), low, high))
    assert row.num_pairs == 4
    assert row.accuracy_mean == pytest.approx(np.mean(after))


def test_gain_uses_only_tasks_that_both_finished(make_run: MakeRun) -> None:
    rows = [*tasks([0.2]), failed_row(task_id="t1"), *tasks([0.3, 0.9], method="tinytrain")]
    row = only(comparison_table(open_run(make_run(rows))), "tinytrain")
    assert row.num_pairs == 1
    assert row.gain_points == pytest.approx(10.0)
    assert row.num_tasks == 2


def test_without_none_there_is_no_gain(make_run: MakeRun) -> None:
    row = only(comparison_table(open_run(make_run(tasks([0.3, 0.9], method="tinytrain")))), "tinytrain")
    assert row.gain_points is None and row.num_pairs == 0


@pytest.mark.parametrize("status", ["diverged", "crashed", "timeout", "error"])
def test_failed_rows_are_counted_and_never_averaged(make_run: MakeRun, status: str) -> None:
    bad = failed_row(status, task_id="t2")
    if status == "diverged":
        bad |= {"accuracy_before": 0.5, "accuracy_after": 0.0, "latency_ms": 9e9, "fits": "yes"}
    row = only(comparison_table(open_run(make_run([*tasks([0.4, 0.6]), bad]))), "none")
    assert row.accuracy_mean == pytest.approx(0.5)
    assert (row.num_rows, row.num_tasks, row.num_failed) == (3, 2, 1)
    assert row.failed_share == pytest.approx(1 / 3)
    assert row.fits_share == 1.0
    assert row.latency_p50_ms == 1000.0


def test_a_method_that_only_failed_still_has_its_row(make_run: MakeRun) -> None:
    rows = [*tasks([0.4]), failed_row(method="tinytrain", task_id="t0")]
    row = only(comparison_table(open_run(make_run(rows))), "tinytrain")
    assert row.accuracy_mean is None and row.fits_share is None and row.latency_p50_ms is None
    assert row.failed_share == 1.0


def test_infeasible_counts_as_not_fitting_and_leaves_the_mean_where_it_fits(make_run: MakeRun) -> None:
    rows = tasks([0.4, 0.6]) + tasks([0.5, 0.6], method="tinytrain", plan_status="ok")
    rows[3] |= {"plan_status": "infeasible", "fits": "yes", "latency_ms": 1.0, "plan_reason": "no layer fits"}
    row = only(comparison_table(open_run(make_run(rows))), "tinytrain")
    assert row.num_infeasible == 1
    assert row.fits_share == 0.5
    assert row.accuracy_mean == pytest.approx(0.55)
    assert (row.accuracy_where_fits_mean, row.num_tasks_where_fits) == (pytest.approx(0.5), 1)
    assert row.gain_points == pytest.approx(5.0)
    assert (row.num_priced, row.latency_p50_ms) == (1, 1000.0)


def test_not_fitting_keeps_its_accuracy_in_the_first_mean_only(make_run: MakeRun) -> None:
    rows = tasks([0.4, 0.6], method="full_train")
    rows[0]["fits"] = "no"
    row = only(comparison_table(open_run(make_run(rows))), "full_train")
    assert row.accuracy_mean == pytest.approx(0.5)
    assert row.accuracy_where_fits_mean == pytest.approx(0.6)
    assert row.fits_share == 0.5


def test_an_uncertain_fit_is_counted_by_itself(make_run: MakeRun) -> None:
    rows = tasks([0.4, 0.6, 0.8, 0.9], method="full_train")
    for row, word in zip(rows, ("yes", "uncertain", "no", "yes"), strict=True):
        row["fits"] = word
    row = only(comparison_table(open_run(make_run(rows))), "full_train")
    assert (row.fits_share, row.uncertain_share) == (0.5, 0.25)
    assert (row.accuracy_where_fits_mean, row.num_tasks_where_fits) == (pytest.approx(0.65), 2)
    assert accuracy_cells(row, "x")[2] == "50 (+25?)"


def test_raw_pixels_is_shown_once_without_cost(make_run: MakeRun) -> None:
    table = comparison_table(open_run(make_run()))
    row = only(table, "raw_pixels")
    assert row.device is None and row.num_rows == 8 and row.num_tasks == 8
    assert row.latency_p50_ms is None and row.peak_p50_bytes is None
    assert row.num_pairs == 8 and row.gain_points is not None and row.gain_points < 0
    assert not row.numerics_differ
    assert table[0] is row
    assert [r.method for r in table[1:5]] == list(METHODS[1:])


def test_raw_pixels_has_no_gain_where_the_baseline_is_ambiguous(make_run: MakeRun) -> None:
    rows = tasks([0.5]) + tasks([0.6], checkpoint="beef", initialization="random")
    rows += tasks([0.2], method="raw_pixels")
    table = comparison_table(open_run(make_run(rows)))
    assert only(table, "raw_pixels").gain_points is None


def test_checkpoints_are_never_mixed(make_run: MakeRun) -> None:
    rows = tasks([0.5]) + tasks([0.6], method="tinytrain")
    rows += [row | {"checkpoint": "beef", "initialization": "random", "accuracy_after": 0.1} for row in rows]
    table = comparison_table(open_run(make_run(rows)))
    assert only(table, "tinytrain", checkpoint="c0ffee").gain_points == pytest.approx(10.0)
    assert only(table, "tinytrain", checkpoint="beef").gain_points == pytest.approx(0.0)
    labels = adaptation_labels(table)
    assert sorted(labels.values()) == ["none, meta_trained", "none, random", "tinytrain, meta_trained",
                                       "tinytrain, random"]  # fmt: skip


def test_variants_of_one_method_get_their_own_lines(make_run: MakeRun) -> None:
    rows = tasks([0.5], method="tinytrain", variant="r50") + tasks([0.6], method="tinytrain", variant="r25")
    labels = adaptation_labels(comparison_table(open_run(make_run(rows))))
    assert sorted(labels.values()) == ["tinytrain, r25", "tinytrain, r50"]


def test_p95_needs_59_tasks(make_run: MakeRun) -> None:
    def row_of(num: int) -> ComparisonRow:
        rows = [row | {"latency_ms": float(i)} for i, row in enumerate(tasks([0.5] * num))]
        return only(comparison_table(open_run(make_run(rows, name=f"n{num}"))), "none")

    few = row_of(58)
    assert few.latency_p95_ms is None and few.latency_p50_ms == pytest.approx(28.5)
    full = row_of(59)
    assert full.latency_p95_ms == pytest.approx(np.quantile(np.arange(59), 0.95))
    assert full.energy_p95_mj == 300.0 and full.peak_p95_bytes == 200_000


def test_pooled_tables_count_a_task_once(make_run: MakeRun) -> None:
    rows = tasks([0.4, 0.8], device="a") + tasks([0.6, 0.8], device="b")
    row = only(comparison_table(open_run(make_run(rows)), by="method"), "none")
    assert (row.num_tasks, row.num_rows) == (2, 4)
    values = np.array([0.5, 0.8])
    assert row.accuracy_mean == pytest.approx(values.mean())
    high = stats.t.interval(0.95, 1, loc=values.mean(), scale=stats.sem(values))[1]
    assert row.accuracy_high == pytest.approx(high)
    assert row.latency_p50_ms is None and row.device is None


def test_by_domain_has_every_domain_and_method(make_run: MakeRun) -> None:
    table = comparison_table(open_run(make_run()), by="domain")
    assert {(row.domain, row.method) for row in table} == {(d, m) for d in ("signs", "glyphs") for m in METHODS}
    assert all(row.num_tasks == 4 for row in table)


def test_standing_and_numerics_are_named_once_each(make_run: MakeRun) -> None:
    rows = tasks([0.5, 0.6])
    rows[1]["standing"] = "fitted"
    row = only(comparison_table(open_run(make_run(rows))), "none")
    assert row.standing == "estimate+fitted"
    assert (row.accuracy_numerics, row.price_numerics, row.batch) == ("fp32", "int8", "1")
    assert row.numerics_differ


@pytest.fixture(scope="module")
def in_order(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[ComparisonRow]]:
    """The tables of rows that lie in order, in one file."""
    run = open_run(write_run(tmp_path_factory.mktemp("order") / "a", grid_rows(num_tasks=5)))
    return {by: comparison_table(run, by=by) for by in ("device", "domain", "method")}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), num_files=st.integers(1, 5))
@pytest.mark.slow
def test_the_table_depends_on_neither_row_order_nor_file_cuts(
    in_order: dict[str, list[ComparisonRow]], tmp_path_factory: pytest.TempPathFactory, seed: int, num_files: int
) -> None:
    rows = grid_rows(num_tasks=5)
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    run = open_run(write_run(tmp_path_factory.mktemp("order") / "b", shuffled, num_files=num_files))
    assert {by: comparison_table(run, by=by) for by in in_order} == in_order
