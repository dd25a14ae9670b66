"""``Replica``: a worker's copy of the network, overwritten by every call; no call depends on an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinytrain_dist.backbones.flat_state import FlatState, flat_to_state, join_tensors, named_tensors
from tinytrain_dist.backbones.head import accuracy
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.execution.ahead import Ahead
from tinytrain_dist.metatraining.compute import REFERENCE, Compute
from tinytrain_dist.metatraining.episode_tensors import EpisodeTensors, episode_logits, load_slot
from tinytrain_dist.metatraining.slots import Slot


@dataclass(frozen=True, eq=False, kw_only=True)
class SlotResult:
    """What one slot gives the learner.

    Attributes
    ----------
    update
        float32 [flat_size], laid out as the flat weights: the loss' gradient at every weight, and at the running
        statistics the batch mean and (unbiased) batch variance of the slot, which are no gradients.
    head_gradient
        Gradient of the head, float32 [n].
    loss, accuracy
        Of the slot's images; of several episodes the means.
    accuracies
        Query accuracy of each episode of the slot, in their order; empty of a batch.
    """

    update: FlatState
    head_gradient: FlatState
    loss: float
    accuracy: float
    accuracies: tuple[float, ...] = ()

    @property
    def num_slots(self) -> int:
        """Episodes, or batches, that this is the mean of."""
        return len(self.accuracies) or 1


class Replica:
    """Network of one worker.

    Parameters
    ----------
    backbone, resolution
        Registered name, and the pixels of its images.
    roots
        Folders with the user's own domains.
    compute
        Device and precision; raises ``ConfigError`` if the device is not there.
    """

    def __init__(
        self, backbone: str, resolution: int, roots: tuple[str, ...] = (), compute: Compute = REFERENCE
    ) -> None:
        self.resolution, self.roots = resolution, roots
        self._compute, self.device = compute, compute.torch_device()
        self.backbone = build_backbone(backbone, resolution=resolution).to(self.device)
        self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._ahead: Ahead[Any, Any] = Ahead(self.prepare)
        for layer in self.backbone.graph.layers:
            # with momentum 1 the running statistics after a pass ARE the batch statistics
            self.backbone.unit(layer.index).norm.momentum = 1.0

    def load_for_training(self, weights: FlatState) -> None:
        """Take over ``weights`` and forget all gradients."""
        flat_to_state(self.backbone, weights)
        self.backbone.train().zero_grad(set_to_none=True)

    def head(self, values: FlatState) -> Tensor:
        """Return the head's values on the device, to be differentiated by."""
        return torch.tensor(values, device=self.device, requires_grad=True)

    def features(self, images: Tensor) -> Tensor:
        """Return float32 features ``[N, F]``, computed in the precision that was asked for."""
        with self._compute.casting():
            found: Tensor = self.backbone(images)
        return found.float()

    def result(self, *, loss: Tensor, head: Tensor, accuracy: float, accuracies: tuple[float, ...] = ()) -> SlotResult:
        """Differentiate ``loss`` and return everything the learner needs."""
        torch.autograd.backward(loss)
        assert head.grad is not None
        return SlotResult(
            update=self._update(), head_gradient=head.grad.cpu().numpy().copy(), loss=float(loss.detach()),
            accuracy=accuracy, accuracies=accuracies,
        )  # fmt: skip

    @torch.inference_mode()
    def evaluate(self, weights: FlatState, slot: Slot) -> float:
        """Return the query accuracy of one episode, normalised by the running statistics."""
        flat_to_state(self.backbone, weights)
        self.backbone.eval()
        episode: EpisodeTensors = self.load(slot)
        logits = episode_logits(self.features(episode.images), episode, torch.tensor(1.0, device=self.device))
        return accuracy(logits, episode.labels)

    def expect(self, slots: Sequence[Any]) -> None:
        """Prepare the slots that come next, in this order, while others are computed."""
        self._ahead.expect(slots)

    def load(self, slot: Any) -> Any:
        """Return what ``prepare`` makes of a slot, made ahead if the slot was expected, on the device."""
        return self._ahead.get(slot).to(self.device)

    def prepare(self, slot: Any) -> Any:
        """Return the tensors of an episode; needs no weights."""
        return load_slot(slot, resolution=self.resolution, roots=self.roots)

    def _update(self) -> FlatState:
        tensors = named_tensors(self.backbone)
        for name, parameter in self.backbone.named_parameters():
            assert parameter.grad is not None, f"{name} took no part in the loss"
            tensors[name] = parameter.grad
        return join_tensors(self.backbone.graph, tensors)
