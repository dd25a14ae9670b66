"""Intervals, corrections and quantiles against SciPy and against their own definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tinytrain_dist.reporting.intervals import Moments, bootstrap_interval, domain_mean, t_test
from tinytrain_dist.reporting.multiplicity import holm
from tinytrain_dist.reporting.quantiles import MIN_TASKS_P95, MIN_TASKS_P99, quantile_or_none, tasks_needed

RANDOM = np.random.default_rng(3)


def moments(values: np.ndarray) -> Moments:
    return Moments(len(values), float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def test_paired_t_test_is_scipys() -> None:
    before, after = RANDOM.normal(0.5, 0.1, 30), RANDOM.normal(0.53, 0.1, 30)
    gaps = after - before
    found = moments(gaps)
    assert t_test(found.mean, found.deviation, found.num) == pytest.approx(stats.ttest_rel(after, before).pvalue)
    assert t_test(0.0, 0.0, 5) == 1.0 and t_test(0.1, 0.0, 5) == 0.0 and t_test(0.1, None, 1) is None


def test_two_domains_are_welchs_interval() -> None:
    """The mean of two domain means is half their sum: its interval is half of Welch's for a sum."""
    first, second = RANDOM.normal(0.4, 0.05, 12), RANDOM.normal(0.8, 0.2, 31)
    found = domain_mean([moments(first), moments(second)])
    welch = stats.ttest_ind(first, -second, equal_var=False).confidence_interval(0.95)
    assert found is not None and found.num == 43
    assert (found.low, found.high) == pytest.approx((welch.low / 2, welch.high / 2))
    assert found.mean == pytest.approx((first.mean() + second.mean()) / 2)


def test_one_domain_is_students_interval_and_a_single_task_has_none() -> None:
    values = RANDOM.normal(0.4, 0.05, 9)
    found = domain_mean([moments(values)])
    low, high = stats.t.interval(0.95, 8, loc=values.mean(), scale=stats.sem(values))
    assert found is not None and (found.low, found.high) == pytest.approx((low, high))
    lonely = domain_mean([moments(values), Moments(1, 0.2, None)])
    assert lonely is not None and lonely.low is None and lonely.mean == pytest.approx((values.mean() + 0.2) / 2)
    assert domain_mean([Moments(0, None, None)]) is None


def test_domain_mean_covers_the_truth_95_percent_of_the_time() -> None:
    sizes, spreads, centres = (8, 20, 40), (0.05, 0.2, 0.1), (0.3, 0.5, 0.9)
    hits = 0
    for seed in range(600):
        random = np.random.default_rng(seed)
        parts = [random.normal(c, s, n) for c, s, n in zip(centres, spreads, sizes, strict=True)]
        found = domain_mean([moments(part) for part in parts])
        assert found is not None and found.low is not None and found.high is not None
        hits += found.low <= np.mean(centres) <= found.high
    assert 0.92 < hits / 600 < 0.98


def test_bootstrap_is_scipys_percentile_bootstrap() -> None:
    values = np.round(RANDOM.normal(2.0, 4.0, 80), 1)
    found = bootstrap_interval([values.tolist()], seed="x")
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert found is not None and found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=0.06) and found.high == pytest.approx(expected.high, abs=0.06)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), min_size=2, max_size=9), min_size=1, max_size=3), st.randoms())
def test_bootstrap_does_not_depend_on_order(domains: list[list[int]], random: st.DataObject) -> None:
    first = bootstrap_interval([[v / 20 for v in values] for values in domains])
    for values in domains:
        random.shuffle(values)  # type: ignore[attr-defined]
    random.shuffle(domains)  # type: ignore[attr-defined]
    assert bootstrap_interval([[v / 20 for v in values] for values in domains]) == first


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closure_of_bonferroni(p_values: list[float]) -> None:
    """Adjusted p of a hypothesis: the largest Bonferroni p of any family that contains it."""
    places = range(len(p_values))
    families = [f for size in range(1, len(p_values) + 1) for f in itertools.combinations(places, size)]
    expected = [max(min(1.0, len(f) * min(p_values[i] for i in f)) for f in families if place in f) for place in places]
    assert holm(p_values) == pytest.approx(expected)


def test_holm_leaves_out_what_was_not_tested() -> None:
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm([]) == []


def test_quantiles_need_enough_tasks() -> None:
    assert (MIN_TASKS_P95, MIN_TASKS_P99) == (59, 299)
    for share in (0.5, 0.9, 0.95, 0.99):
        assert share ** tasks_needed(share) < 0.05 <= share ** (tasks_needed(share) - 1)
    assert quantile_or_none(1.0, 0.99, 298) is None and quantile_or_none(1.0, 0.99, 299) == 1.0
