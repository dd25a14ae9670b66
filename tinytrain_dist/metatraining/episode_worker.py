"""``EpisodeWorker``: one replica of the network that turns (weights, slot) into a gradient, or into an accuracy.

Source: ProtoNet episodes (Snell et al., NeurIPS 2017) with the cosine head of PMF (Hu et al., CVPR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tinytrain_dist.backbones.flat_state import FlatState, flat_to_state, join_tensors, named_tensors
from tinytrain_dist.backbones.head import accuracy, class_means, cosine_logits
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import Episode, load_episode
from tinytrain_dist.data.transforms import augment, to_float, to_unit
from tinytrain_dist.metatraining.slots import Slot


@dataclass(frozen=True, eq=False, kw_only=True)
class SlotResult:
    """What one training episode gives the learner.

    Attributes
    ----------
    update
        float32 [flat_size], laid out as the flat weights: the loss' gradient at every weight, and at the running
        statistics the episode's batch mean and (unbiased) batch variance, which are no gradients.
    scale_gradient
        Gradient of the head's scale.
    loss, accuracy
        Of the query images.
    """

    update: FlatState
    scale_gradient: float
    loss: float
    accuracy: float


class EpisodeWorker:
    """Holds a network whose weights are overwritten by every call; no call depends on an earlier one."""

    def __init__(self, backbone: str, resolution: int, roots: tuple[str, ...] = ()) -> None:
        self._resolution, self._roots = resolution, roots
        self._backbone = build_backbone(backbone, resolution=resolution)
        self._backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layer in self._backbone.graph.layers:
            # with momentum 1 the running statistics after a pass ARE the batch statistics
            self._backbone.unit(layer.index).norm.momentum = 1.0

    def learn(self, weights: FlatState, scale: float, slot: Slot) -> SlotResult:
        """Return gradient, batch statistics, loss and accuracy of one episode, normalised by its own images."""
        flat_to_state(self._backbone, weights)
        self._backbone.train().zero_grad(set_to_none=True)
        head_scale = torch.tensor(scale, requires_grad=True)
        logits, labels = self._logits(slot, head_scale)
        loss = functional.cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        assert head_scale.grad is not None
        return SlotResult(
            update=self._update(), scale_gradient=float(head_scale.grad), loss=float(loss.detach()),
            accuracy=accuracy(logits.detach(), labels),
        )  # fmt: skip

    @torch.inference_mode()
    def evaluate(self, weights: FlatState, slot: Slot) -> float:
        """Return the query accuracy of one episode, normalised by the running statistics."""
        flat_to_state(self._backbone, weights)
        self._backbone.eval()
        logits, labels = self._logits(slot, torch.tensor(1.0))
        return accuracy(logits, labels)

    def _logits(self, slot: Slot, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return query logits ``[Q, way]`` and labels ``[Q]``; support and query pass the network together."""
        episode = load_episode(open_domain(slot.spec.domain, roots=self._roots), slot.spec, resolution=self._resolution)
        features = self._backbone(_network_input(episode, slot.augmentation_seed))  # [S + Q, F]
        num_support = len(episode.support_labels)
        prototypes = class_means(features[:num_support], torch.from_numpy(episode.support_labels), episode.way)
        return cosine_logits(features[num_support:], prototypes, scale), torch.from_numpy(episode.query_labels)

    def _update(self) -> FlatState:
        tensors = named_tensors(self._backbone)
        for name, parameter in self._backbone.named_parameters():
            assert parameter.grad is not None, f"{name} took no part in the loss"
            tensors[name] = parameter.grad
        return join_tensors(self._backbone.graph, tensors)


def _network_input(episode: Episode, augmentation_seed: int | None) -> Tensor:
    """Return ``[S + Q, 3, R, R]`` in [-1, 1], support first."""
    pixels = torch.from_numpy(np.concatenate([episode.support_images, episode.query_images]))
    if augmentation_seed is None:
        images = to_unit(pixels)
    else:
        images = to_unit(augment(to_float(pixels), torch.Generator().manual_seed(augmentation_seed)))
    return images.contiguous(memory_format=torch.channels_last)
