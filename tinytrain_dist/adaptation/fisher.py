"""Fisher information of activations (TinyTrain, Eq. 2), measured where BlockSwap measures it.

``Delta_o = 1/(2N) * sum_n ( sum_d a_nd * g_nd )^2`` for channel o, with activation a after normalisation and
ReLU6 (after normalisation alone for the projection), g = dLoss/da, N images, D positions. Layer potential:
``P = sum_o Delta_o``. One backward pass serves every device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.folded import join, pool
from tinytrain_dist.backbones.network import LayerState


@dataclass(frozen=True)
class FisherInformation:
    """``channels[layer]``: Delta of every output channel, float64 ``[out_channels]``.

    The loss' reduction rescales it: compare within a task only.
    """

    channels: Mapping[int, NDArray[np.float64]]

    def potential(self, layer: int) -> float:
        """Return the layer potential P, the sum over its channels."""
        return float(self.channels[layer].sum())

    @property
    def layers(self) -> tuple[int, ...]:
        """Inspected layers, ascending."""
        return tuple(sorted(self.channels))


def fisher_information(task: TargetTask, inspected: Sequence[int]) -> FisherInformation:
    """Measure Delta for the ``inspected`` layers with one forward and one backward pass over the task.

    The loss is the fine-tuning loss over the whole episode: support as prototypes, its augmented copy as
    pseudo-query; both count among the N images.
    """
    first, wanted, kept = min(inspected), frozenset(inspected), dict[int, Tensor]()

    def tap(index: int, activation: Tensor) -> Tensor:
        if index not in wanted:
            return activation
        if not activation.requires_grad:
            activation = activation.detach().requires_grad_()
        activation.retain_grad()
        kept[index] = activation
        return activation

    with torch.no_grad():
        pseudo = task.network.run(LayerState(task.pseudo_query("fisher", 0)), stop=first)
    state = task.network.run(join(task.support_state(first), pseudo), start=first, taps=tap)
    support, query = torch.tensor_split(pool(state), 2)
    task.loss(support, query).backward()  # type: ignore[no-untyped-call]
    return FisherInformation({index: _delta(activation) for index, activation in kept.items()})


def _delta(activation: Tensor) -> NDArray[np.float64]:
    """Return Delta of each channel from an activation ``[N, C, H, W]`` that holds its gradient."""
    assert activation.grad is not None
    inner = (activation.detach() * activation.grad).sum(dim=(2, 3), dtype=torch.float64)  # [N, C]
    delta: NDArray[np.float64] = (inner.square().mean(dim=0) / 2).numpy()
    return delta
