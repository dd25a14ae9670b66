"""Weights as one flat array: order, round trip, refusal of a wrong length."""

import numpy as np
import pytest
import torch

from tinytrain_dist.backbones.flat_state import (
    flat_size,
    flat_to_state,
    join_tensors,
    named_tensors,
    split_flat,
    state_to_flat,
    tensor_shapes,
)
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.graphs.architectures import backbone_names, layer_graph


@pytest.mark.parametrize("name", backbone_names())
def test_round_trip(name: str) -> None:
    first, second = build_backbone(name, seed=0), build_backbone(name, seed=1)
    flat = np.random.default_rng(0).standard_normal(flat_size(first.graph)).astype(np.float32)
    flat_to_state(first, flat)
    assert np.array_equal(state_to_flat(first), flat)
    flat_to_state(second, state_to_flat(first))
    for key, tensor in named_tensors(second).items():
        assert torch.equal(tensor, named_tensors(first)[key]), key


def test_order_is_layer_by_layer() -> None:
    graph = layer_graph("mcunet")
    names = list(tensor_shapes(graph))
    parts = ("conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    assert names == [f"units.{i}.{part}" for i in range(42) for part in parts]
    assert flat_size(graph) == graph.weights + 2 * graph.norm_parameters
    backbone = build_backbone(graph)
    flat = state_to_flat(backbone)
    stem = backbone.unit(0)
    assert np.array_equal(flat[:432], stem.conv.weight.detach().numpy().reshape(-1))
    assert np.array_equal(flat[432:448], stem.norm.weight.detach().numpy())


def test_the_tensors_cover_the_whole_state() -> None:
    backbone = build_backbone("mobilenet_v2")
    state = {key for key in backbone.state_dict() if not key.endswith("num_batches_tracked")}
    assert set(tensor_shapes(backbone.graph)) == state


def test_flat_is_a_copy_and_loading_does_not_alias() -> None:
    backbone = build_backbone("mcunet")
    flat = state_to_flat(backbone)
    flat += 1
    assert not np.array_equal(flat, state_to_flat(backbone))
    flat_to_state(backbone, flat)
    flat += 1
    assert not np.array_equal(flat, state_to_flat(backbone))


def test_read_only_array_of_an_object_store_is_accepted() -> None:
    backbone = build_backbone("mcunet")
    flat = state_to_flat(build_backbone("mcunet", seed=5))
    flat.flags.writeable = False
    flat_to_state(backbone, flat)
    assert np.array_equal(state_to_flat(backbone), flat)


def test_float64_module_keeps_its_dtype() -> None:
    backbone = build_backbone("mcunet").double()
    flat = state_to_flat(build_backbone("mcunet", seed=5))
    flat_to_state(backbone, flat)
    assert backbone.unit(0).conv.weight.dtype == torch.float64
    assert state_to_flat(backbone).dtype == np.float32
    assert np.array_equal(state_to_flat(backbone), flat)


def test_split_and_join_are_inverse() -> None:
    graph = layer_graph("proxylessnas")
    flat = np.arange(flat_size(graph), dtype=np.float32)
    views = split_flat(graph, flat)
    assert {name: view.shape for name, view in views.items()} == tensor_shapes(graph)
    assert np.array_equal(join_tensors(graph, {k: torch.from_numpy(v) for k, v in views.items()}), flat)


@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_length_is_refused(change: int) -> None:
    backbone = build_backbone("mcunet")
    flat = np.zeros(flat_size(backbone.graph) + change, dtype=np.float32)
    with pytest.raises(CheckpointError, match="mcunet takes"):
        flat_to_state(backbone, flat)
