"""The vectorised prices are the single ones, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_tables import plan_of
from plan_strategies import plans

from tinytrain_dist.costs.plan_arrays import plan_arrays
from tinytrain_dist.costs.price_table import price_table
from tinytrain_dist.costs.pricing import Workload, price
from tinytrain_dist.costs.profile_files import load_profiles
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.costs.static_plans import STATIC_METHODS
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import UpdatePlan, full_plan

PROFILES = load_profiles()
MCUNET = layer_graph("mcunet")
WORKLOADS = (
    Workload(support_size=25, iterations=40),
    Workload(support_size=3, iterations=2, optimizer="sgd", fused_update=True, way=12, batch=7),
    Workload(support_size=25, iterations=40, inspected=MCUNET.last_blocks(6)),
    Workload(support_size=25, iterations=40, paper_convention=True),
    Workload(support_size=25, iterations=40, extra_images=75, batch=7),
    Workload(support_size=25, iterations=40, batch=100, full=True),
    Workload(support_size=25, iterations=40, batch=100, full=True, paper_convention=True),
    Workload(support_size=2, iterations=0),
)


def assert_equal_to_single_prices(
    graph: LayerGraph,
    chosen: list[UpdatePlan],
    workload: Workload,
    *,
    supports: list[int] | None = None,
    profiles: Sequence[DeviceProfile] = PROFILES,
) -> None:
    supports = supports or [workload.support_size]
    grid = [(p, d, s) for p in range(len(chosen)) for d in range(len(profiles)) for s in supports]
    plan, device, support = (np.array(column) for column in zip(*grid, strict=True))
    table = price_table(
        graph, {"plan": plan, "device": device, "support_size": support}, plans=plan_arrays(graph, chosen),
        profiles=profiles, workload=workload,
    )  # fmt: skip
    for row, (p, d, s) in enumerate(grid):
        expected = asdict(price(graph, chosen[p], profiles[d], replace(workload, support_size=s)))
        found = {name: _plain(values[row]) for name, values in table.items()}
        apart = {name: (value, expected[name]) for name, value in found.items() if not _same(value, expected[name])}
        assert found.keys() == expected.keys()
        assert not apart, (p, profiles[d].name, s)


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, float) and isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-12)
    return bool(found == expected)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_method_on_every_device(workload: Workload) -> None:
    assert_equal_to_single_prices(MCUNET, [plan_of(MCUNET, method) for method in STATIC_METHODS], workload)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(plans(backbones=("mobilenet_v2",), biases=True, adapters=True), min_size=1, max_size=4),
    st.sampled_from(WORKLOADS),
    st.lists(st.integers(1, 200), min_size=1, max_size=2),
    st.lists(st.sampled_from(PROFILES), min_size=1, max_size=6, unique_by=lambda profile: profile.name),
)
@pytest.mark.slow
def test_any_plan(
    cases: list[tuple[LayerGraph, UpdatePlan]], workload: Workload, supports: list[int], profiles: list[DeviceProfile]
) -> None:
    graph = cases[0][0]
    given = replace(workload, inspected=graph.last_blocks(1) if workload.inspected else ())
    chosen = [plan for _, plan in cases]
    assert_equal_to_single_prices(graph, chosen, given, supports=supports, profiles=profiles)


def test_a_plan_of_all_weights_costs_two_forward_passes() -> None:
    assert_equal_to_single_prices(MCUNET, [full_plan(MCUNET), plan_of(MCUNET, "none")], WORKLOADS[0])


def test_columns_are_checked() -> None:
    arrays = plan_arrays(MCUNET, [plan_of(MCUNET, "none")])
    zeros = np.zeros(2, np.int64)
    for cells, words in (
        ({"plan": zeros}, "'device' is missing"),
        ({"plan": zeros, "device": zeros, "suport_size": zeros}, "did you mean 'support_size'"),
        ({"plan": zeros, "device": np.zeros(3, np.int64)}, "'device'"),
        ({"plan": zeros + 1, "device": zeros}, "'plan': found 1 to 1; allowed 0 to 0"),
        ({"plan": zeros, "device": zeros, "support_size": zeros}, "'support_size': found 0 to 0; allowed 1"),
        ({"plan": zeros, "device": zeros + 0.5}, "integers"),
    ):
        with pytest.raises(ConfigError, match=words):
            price_table(MCUNET, cells, plans=arrays, profiles=PROFILES, workload=WORKLOADS[0])


def test_no_cells_no_rows() -> None:
    none = np.zeros(0, np.int64)
    arrays = plan_arrays(MCUNET, [])
    table = price_table(MCUNET, {"plan": none, "device": none}, plans=arrays, profiles=[], workload=WORKLOADS[0])
    assert {len(column) for column in table.values()} == {0}
