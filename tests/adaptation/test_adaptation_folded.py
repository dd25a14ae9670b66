"""The folded network is the backbone in eval mode, between any two layers."""

import pytest
import torch
from tiny_task import GRAPH, SIZE, tiny_backbone
from torch import Tensor

from tinytrain_dist.backbones.folded import FoldedNetwork, join, pool
from tinytrain_dist.backbones.network import LayerState, build_backbone

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
    seen: dict[str, dict[int, Tensor]] = {"backbone": {}, "folded": {}}

    def tap(which: str, index: int, activation: Tensor) -> Tensor:
        seen[which][index] = activation
        return activation

    with torch.no_grad():
        backbone.run(LayerState(IMAGES), start=0, stop=END, taps=lambda i, x: tap("backbone", i, x))
        FoldedNetwork(backbone).run(LayerState(IMAGES), taps=lambda i, x: tap("folded", i, x))
    assert list(seen["folded"]) == [layer.index for layer in GRAPH.layers]
    for index, activation in seen["backbone"].items():
        torch.testing.assert_close(seen["folded"][index], activation, rtol=1e-10, atol=1e-10)


def test_a_replaced_layer_is_the_only_one_that_changes() -> None:
    network = FoldedNetwork(tiny_backbone())
    weight, bias = network.layers[7]
    same = network.features(IMAGES, replaced={7: (weight.clone(), bias.clone())})
    assert torch.equal(same, network.features(IMAGES))
    other = network.features(IMAGES, replaced={7: (weight * 2, bias)})
    assert not torch.allclose(other, same)
    assert torch.equal(network.features(IMAGES), same), "a replacement outlives its call"


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
def test_joined_states_run_as_one_batch(cut: int) -> None:
    network = FoldedNetwork(tiny_backbone())
    first, second = (network.run(LayerState(part), stop=cut) for part in (IMAGES[:1], IMAGES[1:]))
    together = pool(network.run(join(first, second), start=cut))
    torch.testing.assert_close(together, network.features(IMAGES), rtol=1e-12, atol=1e-12)
