"""Update plans: counts, checks, JSON round trip and damage."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.foundation.errors import ConfigError, ExitCode, PlanError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.update_plan import (
    LayerUpdate,
    UpdatePlan,
    full_plan,
    plan_from_json,
    plan_to_json,
    update_weights,
    updated_weights,
)

GRAPH = layer_graph("mcunet")
PLAN = UpdatePlan(
    backbone="mcunet",
    updates=(LayerUpdate(layer=36, channels=(0, 3, 5)), LayerUpdate(layer=41, channels=None, side="input")),
    bias_layers=(40, 41),
)


@st.composite
def plans(draw: st.DrawFn) -> UpdatePlan:
    layers = sorted(draw(st.sets(st.integers(0, 41), max_size=6)))
    updates = []
    for index in layers:
        limit = GRAPH.layer(index).out_channels - 1
        chosen = draw(st.none() | st.sets(st.integers(0, limit), min_size=1, max_size=8))
        updates.append(LayerUpdate(layer=index, channels=None if chosen is None else tuple(sorted(chosen))))
    bias = tuple(sorted(draw(st.sets(st.integers(0, 41), max_size=4))))
    return UpdatePlan(backbone="mcunet", updates=tuple(updates), bias_layers=bias)


@given(plans())
def test_json_round_trip(plan: UpdatePlan) -> None:
    again = plan_from_json(plan_to_json(plan), name="plan")
    assert again == plan
    assert again.hash == plan.hash
    assert again.check(GRAPH) is again


@given(plans())
def test_counts_never_exceed_the_network(plan: UpdatePlan) -> None:
    assert 0 <= updated_weights(plan, GRAPH) <= GRAPH.weights
    assert plan.is_empty == (plan.earliest_layer is None)


def test_hash_is_stable_and_separates_plans() -> None:
    assert PLAN.hash == dataclasses.replace(PLAN).hash
    others = [
        dataclasses.replace(PLAN, bias_layers=(41,)),
        dataclasses.replace(PLAN, updates=PLAN.updates[:1]),
        dataclasses.replace(PLAN, backbone="mobilenet_v2"),
        dataclasses.replace(PLAN, scale_layers=(41,)),
    ]
    assert len({PLAN.hash, *(x.hash for x in others)}) == 5


def test_counts_of_both_sides() -> None:
    layer = GRAPH.layer(36)
    assert update_weights(LayerUpdate(layer=36, channels=(0, 3, 5)), layer) == 3 * layer.channels_per_group
    by_input = LayerUpdate(layer=36, channels=(0, 1), side="input")
    assert update_weights(by_input, layer) == 2 * layer.out_channels
    assert updated_weights(full_plan(GRAPH), GRAPH) == GRAPH.weights


def test_earliest_layers() -> None:
    plan = UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=30),), bias_layers=(20,))
    assert (plan.earliest_weight_layer, plan.earliest_layer) == (30, 20)
    assert UpdatePlan(backbone="mcunet").earliest_layer is None


@pytest.mark.parametrize(
    "plan",
    [
        UpdatePlan(backbone="mobilenet_v2"),
        UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=42),)),
        UpdatePlan(backbone="mcunet", bias_layers=(-1,)),
        UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=5), LayerUpdate(layer=5))),
        UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=6), LayerUpdate(layer=5))),
        UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=41, channels=()),)),
        UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=41, channels=(160,)),)),
        UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=41, channels=(2, 1)),)),
        UpdatePlan(backbone="mcunet", bias_layers=(40, 40, 40)),
        UpdatePlan(backbone="mcunet", scale_layers=(3, 3, 2)),
        UpdatePlan(backbone="mcunet", scale_layers=(42,)),
    ],
)
def test_check_refuses_what_the_graph_has_not(plan: UpdatePlan) -> None:
    with pytest.raises(PlanError):
        plan.check(GRAPH)


def _changed(**fields: object) -> str:
    return json.dumps(json.loads(plan_to_json(PLAN)) | fields)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '"text"',
        _changed(format=2),
        _changed(hash="0" * 16),
        _changed(bias_layers=[1]),
        _changed(bias_layers="ab"),
        _changed(updates=[{"layer": 1}]),
        _changed(updates=[{"layer": 1, "channels": None, "side": "left"}]),
        _changed(updates=7),
        plan_to_json(PLAN).replace('"layer": 36', '"layer": 1e400'),
        plan_to_json(PLAN).replace('"layer": 36', '"layer": 36.0'),
        plan_to_json(PLAN).replace('"layer": 36', '"layer": "36"'),
        plan_to_json(PLAN).replace("[0, 3, 5]", "[false, 3, 5]"),
        "[" * 100_000,
        '{"format": 1, "updates": ' + "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_damaged_plan_names_the_file(text: str) -> None:
    with pytest.raises(PlanError, match="task7") as caught:
        plan_from_json(text, name="task7.json")
    assert caught.value.exit_code is ExitCode.BAD_INPUT


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
@pytest.mark.parametrize("key", ["memory_bytes", "backward_macs"])
def test_budget_must_be_a_count(key: str, value: object) -> None:
    fields: dict[str, object] = {"memory_bytes": 1, "backward_macs": 1, key: value}
    with pytest.raises(ConfigError, match=f"budget.{key}"):
        Budget(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_a_budget_is_overdrawn_by_a_count(value: object) -> None:
    with pytest.raises(ConfigError, match=r"budget\.overdrawn_bytes"):
        Budget(memory_bytes=1, backward_macs=1, overdrawn_bytes=value)  # type: ignore[arg-type]
