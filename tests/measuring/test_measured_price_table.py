"""Measured phases priced for many plans at once are those of single plans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrain_dist.costs.latency import image_pass, optimizer_step_ms
from tinytrain_dist.costs.measured_plan_times import measured_optimizer, measured_weight_grads
from tinytrain_dist.costs.phase_amounts import AMOUNTS
from tinytrain_dist.costs.plan_arrays import plan_arrays
from tinytrain_dist.costs.price_table import price_table
from tinytrain_dist.costs.pricing import price
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.workload import Workload
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, side_channels

GRAPH = layer_graph("mcunet", 64)
COEFFICIENTS = {name: 0.1 * (place + 1) for place, name in enumerate(AMOUNTS)}
PROFILE = load_profile("raspberry_pi_4b").model_copy(
    update={"phases": dict.fromkeys(("weight_grad", "optimizer", "input_grad", "load"), COEFFICIENTS)}
)


@st.composite
def plans(draw: st.DrawFn) -> UpdatePlan:
    indices = sorted(draw(st.sets(st.integers(0, len(GRAPH.layers) - 1), max_size=4)))
    updates = []
    for index in indices:
        side = draw(st.sampled_from(("output", "input")))
        limit = side_channels(GRAPH.layer(index), side)
        count = draw(st.integers(1, limit))
        channels = None if draw(st.booleans()) else tuple(range(count))
        updates.append(LayerUpdate(layer=index, channels=channels, side=side))
    layers = st.sets(st.integers(0, len(GRAPH.layers) - 1), max_size=3)
    return UpdatePlan(
        backbone="mcunet", updates=tuple(updates), bias_layers=tuple(sorted(draw(layers))),
        scale_layers=tuple(sorted(draw(layers))),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(plans(), min_size=1, max_size=4))
def test_many_plans_cost_what_each_costs(many: list[UpdatePlan]) -> None:
    arrays = plan_arrays(GRAPH, many)
    weight_grads = [image_pass(GRAPH, plan, PROFILE).weight_grad_ms for plan in many]
    assert np.allclose(measured_weight_grads(GRAPH, arrays, COEFFICIENTS), weight_grads)
    for optimizer, words in (("adam", 1.0), ("sgd", 1 / 3)):
        steps = [optimizer_step_ms(GRAPH, plan, PROFILE, optimizer=optimizer) for plan in many]
        assert measured_optimizer(GRAPH, arrays, COEFFICIENTS, words=words) == pytest.approx(steps)


@settings(max_examples=10, deadline=None)
@given(plans())
def test_a_table_of_measured_phases_is_the_single_price(plan: UpdatePlan) -> None:
    """Loading included: a file of its own takes a fixed time and one per parameter."""
    work = Workload(support_size=5, iterations=2)
    cells = {"plan": np.zeros(1, np.int64), "device": np.zeros(1, np.int64)}
    table = price_table(GRAPH, cells, plans=plan_arrays(GRAPH, [plan]), profiles=[PROFILE], workload=work)
    single = price(GRAPH, plan, PROFILE, work)
    loading = (COEFFICIENTS["passes"] + COEFFICIENTS["weights"] * GRAPH.parameters) / 1e6
    assert single.load_ms == pytest.approx(loading)
    for name in ("load_ms", "training_ms", "latency_ms", "latency_low_ms", "latency_high_ms"):
        assert table[name][0] == pytest.approx(getattr(single, name)), name
