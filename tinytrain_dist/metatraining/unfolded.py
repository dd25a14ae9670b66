"""Weights whose normalisation was folded into the convolutions, made fit for training.

Published int8 networks come so: each normalisation does nothing but add a shift. Training normalises by a batch's own
statistics, and without the true ones in the scale every layer would pass on something else than it was trained to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tinytrain_dist.backbones.flat_state import flat_to_state, state_to_flat
from tinytrain_dist.backbones.network import NORM_EPS, Backbone, build_backbone
from tinytrain_dist.data.domain import Domain
from tinytrain_dist.data.transforms import to_unit
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.metatraining.initialization import InitialWeights
from tinytrain_dist.metatraining.source_images import SourceImages
from tinytrain_dist.metatraining.training_settings import TrainingSettings

NUM_IMAGES = 128
"""Train images of the source domains that the statistics are measured on, 32 at a time."""
_PER_PASS = 32
_log = logger(__name__)


def unfolded(initial: InitialWeights, settings: TrainingSettings, domains: Mapping[str, Domain]) -> InitialWeights:
    """Return weights that are the same network in eval mode and nearly the same in training; others as they are."""
    backbone = build_backbone(settings.backbone, resolution=settings.resolution)
    flat_to_state(backbone, initial.weights)
    if not is_folded(backbone):
        return initial
    source = SourceImages(list(domains.values()))
    count = min(NUM_IMAGES, len(source))
    chosen = generator_of(settings.seed, "unfolded").choice(len(source), count, replace=False)
    images = to_unit(torch.from_numpy(source.pixels(chosen, resolution=settings.resolution)))
    _log.info("the initial weights have no statistics of their own: measured on %d source images", count)
    unfold(backbone, images)
    return replace(initial, weights=state_to_flat(backbone))


def is_folded(backbone: Backbone) -> bool:
    """Return whether no normalisation does anything but add its shift."""
    for layer in backbone.graph.layers:
        norm = backbone.unit(layer.index).norm
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight / torch.sqrt(norm.running_var + NORM_EPS)
        if norm.running_mean.any() or not torch.allclose(factor, torch.ones_like(factor), rtol=0, atol=1e-6):
            return False
    return True


@torch.no_grad()
def unfold(backbone: Backbone, images: Tensor) -> None:
    """Give every normalisation of a folded network the statistics of ``images``, ``[N, 3, R, R]`` in [-1, 1].

    With mean m and variance v of what the convolution makes, scale sqrt(v + eps) and shift m + b leave y + b as it is.
    """
    layers = [backbone.unit(layer.index) for layer in backbone.graph.layers]
    sums = [torch.zeros(2, unit.norm.num_features, dtype=torch.float64) for unit in layers]
    counts = [0] * len(layers)

    def watch(index: int, made: Tensor) -> None:
        wide = made.double()
        sums[index] += torch.stack([wide.sum(dim=(0, 2, 3)), wide.square().sum(dim=(0, 2, 3))])
        counts[index] += made.numel() // made.shape[1]

    hooks = [
        unit.conv.register_forward_hook(lambda _module, _given, made, index=index: watch(index, made))
        for index, unit in enumerate(layers)
    ]
    backbone.eval()
    for part in torch.split(images, _PER_PASS):
        backbone(part)
    for hook in hooks:
        hook.remove()
    for unit, total, count in zip(layers, sums, counts, strict=True):
        mean, square = total / count
        variance = (square - mean.square()).clamp_min(0.0)
        norm = unit.norm
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(torch.sqrt(norm.running_var + NORM_EPS))
        norm.bias.add_(norm.running_mean)
