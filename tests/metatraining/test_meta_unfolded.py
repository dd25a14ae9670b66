"""Networks whose normalisation was folded in: the same in eval mode, and fit for training."""

import logging

import pytest
import torch

from tinytrain_dist.backbones.flat_state import flat_to_state, state_to_flat
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import NORM_EPS, Backbone, build_backbone
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.metatraining.initialization import InitialWeights
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.unfolded import is_folded, unfold, unfolded

NAME, RESOLUTION = "mobilenet_v2_w0.1", 32


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, RESOLUTION, RESOLUTION, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def trained() -> Backbone:
    """Return a network whose statistics are those of images, and whose scales and shifts are its own."""
    backbone, generator = build_backbone(NAME, resolution=RESOLUTION), torch.Generator().manual_seed(1)
    for layer in backbone.graph.layers:
        norm = backbone.unit(layer.index).norm
        norm.weight.uniform_(0.5, 2.0, generator=generator)
        norm.bias.uniform_(-0.5, 0.5, generator=generator)
        norm.momentum = 1.0
    backbone.train()(images(64))
    return backbone.eval()


@torch.no_grad()
def folded(backbone: Backbone) -> Backbone:
    """Return the same network as published int8 networks come: scale 1, mean 0, variance 1 - eps."""
    other = build_backbone(NAME, resolution=RESOLUTION)
    for layer, (weight, bias) in zip(backbone.graph.layers, FoldedNetwork(backbone).layers, strict=True):
        unit = other.unit(layer.index)
        unit.conv.weight.copy_(weight)
        unit.norm.bias.copy_(bias)
        assert unit.norm.running_var is not None
        unit.norm.running_var.fill_(1 - NORM_EPS)
    return other.eval()


@torch.no_grad()
def test_eval_is_the_same_and_training_is_near_it() -> None:
    before, after = folded(trained()), folded(trained())
    unfold(after, images(64))
    assert is_folded(before) and not is_folded(after)
    fresh = images(16, seed=2)
    torch.testing.assert_close(after(fresh), before(fresh), rtol=1e-3, atol=1e-4)
    wanted, batch = before(images(64)), images(64)
    assert (before.train()(batch) - wanted).norm() > 0.5 * wanted.norm(), "folded, training sees another network"
    assert (after.train()(batch) - wanted).norm() < 0.02 * wanted.norm()


def test_other_weights_stay_as_they_are() -> None:
    settings = MetaTrainSettings(backbone=NAME, resolution=RESOLUTION, domains=(("emoji", 1.0),))
    domains = {"emoji": open_domain("emoji")}
    drawn = InitialWeights(weights=state_to_flat(trained()), scale=10.0, hash="a")
    assert unfolded(drawn, settings, domains) is drawn
    assert not is_folded(build_backbone(NAME, resolution=RESOLUTION))


def test_a_training_measures_on_its_source_images_the_same_each_time(caplog: pytest.LogCaptureFixture) -> None:
    settings = MetaTrainSettings(backbone=NAME, resolution=RESOLUTION, domains=(("emoji", 1.0),))
    given = InitialWeights(weights=state_to_flat(folded(trained())), scale=10.0, hash="a")
    with caplog.at_level(logging.INFO):
        one, two = (unfolded(given, settings, {"emoji": open_domain("emoji")}) for _ in range(2))
    assert "measured on 128 source images" in caplog.text
    assert (one.weights == two.weights).all() and one.hash == "a"
    network = build_backbone(NAME, resolution=RESOLUTION)
    flat_to_state(network, one.weights)
    assert not is_folded(network)
