"""Batch normalisation of several episodes that pass the network together, each by its own images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinytrain_dist.backbones.network import Backbone


class EpisodeNorm(nn.BatchNorm2d):
    """In training every episode is normalised as if it were alone; running statistics move by the episodes' mean.

    Attributes
    ----------
    sizes
        Images of each episode, in the order of the batch; empty: one episode.
    """

    sizes: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalised."""
        if not self.training or len(self.sizes) < 2:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        moments = torch.zeros(2, len(self.sizes), x.shape[1], device=x.device)
        parts = [
            functional.batch_norm(part, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
            for part, mean, variance in zip(torch.split(x, list(self.sizes)), *moments, strict=True)
        ]
        with torch.no_grad():
            self.running_mean.lerp_(moments[0].mean(0), self.momentum)
            self.running_var.lerp_(moments[1].mean(0), self.momentum)
        return torch.cat(parts)


def separate_episodes(backbone: Backbone, sizes: tuple[int, ...]) -> None:
    """Let the next passes hold episodes of these sizes; the names of the tensors stay."""
    for layer in backbone.graph.layers:
        unit = backbone.unit(layer.index)
        if type(unit.norm) is nn.BatchNorm2d:
            if len(sizes) < 2:
                continue
            unit.norm = _taking_over(unit.norm)
        assert isinstance(unit.norm, EpisodeNorm)
        unit.norm.sizes = sizes


def _taking_over(norm: nn.BatchNorm2d) -> EpisodeNorm:
    made = EpisodeNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    return made
