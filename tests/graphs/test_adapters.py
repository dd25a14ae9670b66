"""Lite residual modules: shapes and counts follow the blocks; plans with them stay readable and stable."""

from __future__ import annotations

import json

import pytest

from tinytrain_dist.foundation.errors import PlanError
from tinytrain_dist.graphs.adapters import adapter_plan, block_ends, lite_residual, lite_residuals
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan, plan_from_json, plan_to_json

MCUNET = layer_graph("mcunet")


def test_the_first_module_of_mcunet_by_hand() -> None:
    module = lite_residual(MCUNET, block_ends(MCUNET)[0])
    assert (module.in_channels, module.width, module.out_channels) == (16, 16, 8)
    assert (module.pooled_size, module.inner_size, module.out_size, module.kernel) == (32, 32, 64, 5)
    assert module.weights == 16 * 8 * 25 + 16 * 8
    assert module.parameters == module.weights + 2 * 16 + 2 * 8
    assert module.macs == module.weights * 32 * 32


@pytest.mark.parametrize("name", ["mcunet", "mobilenet_v2", "proxylessnas"])
@pytest.mark.parametrize("resolution", [16, 84, 128, 224])
def test_modules_follow_their_blocks(name: str, resolution: int) -> None:
    graph = layer_graph(name, resolution)
    for module in lite_residuals(graph, block_ends(graph)):
        members = graph.block_layers(module.block)
        assert module.in_channels == members[0].in_channels
        assert (module.out_channels, module.out_size) == (members[-1].out_channels, members[-1].out_size)
        assert module.kernel in (1, 3, 5)
        assert module.kernel <= module.pooled_size
        assert module.stride == members[0].in_size // members[-1].out_size or module.in_size % 2
        assert [c.weights for c in module.convolutions] == [
            module.in_channels * module.width // 2 * module.kernel**2, module.width * module.out_channels,
        ]  # fmt: skip


def test_a_map_of_one_pixel_is_not_pooled() -> None:
    tiny = layer_graph("mcunet", 32)
    last = lite_residual(tiny, block_ends(tiny)[-1])
    assert (last.in_size, last.pooling, last.kernel) == (1, 1, 1)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 14), (0.25, 10), (0.5, 7), (0.75, 3)])
def test_adapter_drop_rounds_half_up_and_drops_from_the_input_side(share: float, kept: int) -> None:
    plan = adapter_plan(MCUNET, dropped_share=share)
    assert plan.adapters == block_ends(MCUNET)[14 - kept :]
    assert plan.earliest_layer == plan.adapters[0]
    assert not plan.is_empty


def test_plans_with_adapters_round_trip_and_others_keep_their_document() -> None:
    plan = adapter_plan(MCUNET)
    assert plan_from_json(plan_to_json(plan), name="plan") == plan
    old = UpdatePlan(backbone="mcunet", updates=(LayerUpdate(layer=41, channels=(0, 1)),), bias_layers=(41,))
    assert "adapters" not in json.loads(plan_to_json(old))
    assert old.hash == "c7bab4ae7178d855"
    assert plan.hash != UpdatePlan(backbone="mcunet").hash


@pytest.mark.parametrize("adapters", [(0,), (5, 2), (2, 2), (99,)])
def test_an_adapter_stands_at_the_end_of_a_block(adapters: tuple[int, ...]) -> None:
    with pytest.raises(PlanError, match="adapters"):
        UpdatePlan(backbone="mcunet", adapters=adapters).check(MCUNET)
    with pytest.raises(PlanError, match="last convolution"):
        lite_residual(MCUNET, 0)
