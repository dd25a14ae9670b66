"""Fisher information of activations (TinyTrain, Eq. 2), measured where BlockSwap measures it.

``Delta_o = 1/(2N) * sum_n ( sum_d a_nd * g_nd )^2`` for channel o, with activation a after normalisation and
ReLU6 (after normalisation alone for the projection), g = dLoss/da, N images, D positions. Layer potential:
``P = sum_o Delta_o``. One backward pass serves every device. Measured before ReLU6, positions it saturates drop
out: inside it a is the same on both sides, at 0 the product is 0 anyway, at 6 no gradient comes through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinytrain_dist.adaptation.prefix_cache import concatenate
from tinytrain_dist.adaptation.settings import FisherPoint
from tinytrain_dist.adaptation.sparse_pass import SparsePass
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.compiled import masked_, product_sums_, relu6_mask
from tinytrain_dist.backbones.kernels import widened
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


def fisher_information(
    task: TargetTask, inspected: Sequence[int], *, point: FisherPoint = "after_activation"
) -> FisherInformation:
    """Measure Delta for the ``inspected`` layers with one forward and one backward pass over the task.

    The loss is the fine-tuning loss over the whole episode: support as prototypes, its augmented copy as
    pseudo-query; both count among the N images. ``point``: which side of the activation a and g are taken on.
    The pass is float32 whatever the layers below it ran in.
    """
    graph = task.network.graph
    first = min(inspected)
    sparse = SparsePass(task.network, weights=None, start=first, tapped=frozenset(inspected))
    sets = [task.support_state(first), task.pseudo_state(0, first)]
    found: dict[int, NDArray[np.float64]] = {}

    def tap(index: int, activation: Tensor, gradient: Tensor) -> Tensor:
        has_activation = graph.layer(index).has_activation
        if point == "before_activation" and has_activation:
            gradient, has_activation = masked_(gradient, relu6_mask(activation)), False
        found[index], gradient = channel_delta(activation, gradient, clears=has_activation)
        return gradient

    x, residual = concatenate(sets)
    features, tape = sparse.forward(LayerState(widened(x), None if residual is None else widened(residual)))
    leaf = features.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(task.loss(*torch.tensor_split(leaf, 2)), leaf)
    sparse.backward(tape, gradient, tap=tap)
    return FisherInformation(found)


def channel_delta(activation: Tensor, gradient: Tensor, *, clears: bool = False) -> tuple[NDArray[np.float64], Tensor]:
    """Return Delta of each channel from an activation and its gradient, ``[N, C, H, W]`` both, and the gradient.

    ``clears``: the gradient that is returned has passed ReLU6. The memory of both is reused.
    """
    inner, gradient = product_sums_(activation, gradient, clears=clears)
    delta: NDArray[np.float64] = (inner.double().square().mean(dim=0) / 2).numpy()
    return delta, gradient
