"""The folded network is the backbone in eval mode, between any two layers."""

from types import SimpleNamespace

import pytest
import torch
from tiny_task import GRAPH, SIZE, tiny_backbone
from torch import Tensor

from tinytrain_dist.adaptation.prefix_cache import concatenate, split
from tinytrain_dist.adaptation.sparse_pass import SparsePass
from tinytrain_dist.backbones.folded import FoldedNetwork, overflowing, pool
from tinytrain_dist.backbones.network import LayerState, build_backbone
from tinytrain_dist.foundation.errors import CheckpointError

END = len(GRAPH.layers)
IMAGES = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("cut", range(END + 1))
def test_folded_equals_the_backbone_at_every_cut(cut: int) -> None:
    backbone = tiny_backbone()
    network = FoldedNetwork(backbone)
    with torch.no_grad():
        expected = backbone.run(LayerState(IMAGES), start=0, stop=cut)
        found = network.run(LayerState(IMAGES), stop=cut)
        torch.testing.assert_close(found.x, expected.x, rtol=1e-10, atol=1e-10)
        assert (found.residual is None) == (expected.residual is None)
        if found.residual is not None:
            torch.testing.assert_close(found.residual, expected.residual, rtol=1e-10, atol=1e-10)
        rest = pool(network.run(found, start=cut))
        torch.testing.assert_close(rest, backbone(IMAGES), rtol=1e-10, atol=1e-10)
        assert torch.equal(rest, network.features(IMAGES)), "a cut changes no bit"


def test_a_published_architecture_in_float32() -> None:
    backbone = build_backbone("mcunet", resolution=64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(FoldedNetwork(backbone).features(images), backbone(images), rtol=1e-3, atol=1e-4)


def test_taps_see_what_the_backbone_shows_before_the_residual_addition() -> None:
    backbone = tiny_backbone()
    seen: dict[int, Tensor] = {}

    def tap(index: int, activation: Tensor) -> Tensor:
        seen[index] = activation
        return activation

    with torch.no_grad():
        backbone.run(LayerState(IMAGES), start=0, stop=END, taps=tap)
    network = FoldedNetwork(backbone)
    every = frozenset(layer.index for layer in GRAPH.layers)
    features, tape = SparsePass(network, weights=None, start=0, tapped=every).forward(LayerState(IMAGES))
    assert set(tape.activations) == every
    for index, activation in seen.items():
        torch.testing.assert_close(tape.activations[index], activation, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(features, backbone(IMAGES), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("part", ["conv.weight", "norm.weight", "norm.bias", "norm.running_mean"])
def test_weights_that_are_no_numbers_are_refused_by_layer(part: str) -> None:
    """A fused ReLU6 makes a number of NaN: no feature would show it."""
    backbone = tiny_backbone()
    for index in (4, 9):
        backbone.unit(index).state_dict()[part].view(-1)[0] = float("nan")
    with pytest.raises(
        CheckpointError, match=r"^tiny: folded weights that are not finite, or overflow, in layer 4, layer 9$"
    ):
        FoldedNetwork(backbone)


@pytest.mark.parametrize("index", [0, 3, 5, 8, 9])
def test_finite_weights_whose_sums_are_not_are_refused(index: int) -> None:
    """Two values of opposite sign that overflow alike make NaN, and ReLU6 a number of it."""
    backbone = tiny_backbone(dtype=torch.float32)
    with torch.no_grad():
        backbone.unit(index).norm.running_var.fill_(1.0)
        backbone.unit(index).conv.weight[0].fill_(3e38)
    with pytest.raises(CheckpointError, match=rf"^tiny: .* in layer {index}$"):
        FoldedNetwork(backbone)


@pytest.mark.parametrize("scale", [1e3, 1e25])
def test_no_value_leaves_the_bound_that_weights_are_judged_by(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest value at any layer is below the type's limit from which that layer is refused, and not far below."""
    backbone = tiny_backbone()
    for index in (2, 5, 8):
        backbone.unit(index).norm.weight.data.mul_(scale)
    network = FoldedNetwork(backbone)
    for stop in (3, 6, 9):
        largest = float(network.run(LayerState(IMAGES), stop=stop).x.abs().max())
        monkeypatch.setattr(torch, "finfo", lambda dtype, limit=largest: SimpleNamespace(max=0.999 * limit))
        assert stop - 1 in overflowing(GRAPH, network.layers)
        monkeypatch.undo()


def test_later_changes_of_the_backbone_do_not_reach_the_folded_network() -> None:
    backbone = tiny_backbone()
    network = FoldedNetwork(backbone)
    before = network.features(IMAGES)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1.0)
    assert torch.equal(network.features(IMAGES), before)
    assert network.dtype == torch.float64


@pytest.mark.parametrize("cut", [3, 7])
def test_states_in_parts_run_as_one_batch(cut: int) -> None:
    network = FoldedNetwork(tiny_backbone())
    parts = [network.run(LayerState(part), stop=cut) for part in (IMAGES[:1], IMAGES[1:])]
    together = concatenate(parts)
    torch.testing.assert_close(pool(network.run(together, start=cut)), network.features(IMAGES), rtol=1e-12, atol=1e-12)
    for part, again in zip(split(together, 2), (together.x[:2], together.x[2:]), strict=True):
        assert torch.equal(part.x, again)
        assert (part.residual is None) == (together.residual is None)
