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

from tinytrain_dist.adaptation.micro_batches import TAPE_BYTES, pass_in_parts
from tinytrain_dist.adaptation.prefix_cache import concatenate
from tinytrain_dist.adaptation.settings import FisherPoint
from tinytrain_dist.adaptation.sparse_pass import SparsePass
from tinytrain_dist.adaptation.task import NotFiniteError, TargetTask
from tinytrain_dist.backbones.compiled import masked_, product_sums_, relu6_mask
from tinytrain_dist.backbones.kernels import widened
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.graphs.layer_graph import LayerGraph


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
    The pass is float32 whatever the layers below it ran in. Tasks whose activations exceed ``TAPE_BYTES`` are passed
    in micro-batches, with the same result. Raises ``NotFiniteError`` for a Delta that is no number: no layer could be
    ranked by it.
    """
    graph = task.network.graph
    first = min(inspected)
    sparse = SparsePass(task.network, weights=None, start=first, tapped=frozenset(inspected))
    sets = [task.support_state(first), task.pseudo_state(0, first)]
    products: dict[int, list[Tensor]] = {index: [] for index in inspected}

    def tap(index: int, activation: Tensor, gradient: Tensor) -> Tensor:
        has_activation = graph.layer(index).has_activation
        if point == "before_activation" and has_activation:
            gradient, has_activation = masked_(gradient, relu6_mask(activation)), False
        inner, gradient = product_sums_(activation, gradient, clears=has_activation)
        products[index].append(inner)
        return gradient

    def head(features: Tensor) -> Tensor:
        leaf = features.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(task.loss(*torch.tensor_split(leaf, 2)), leaf)
        return gradient

    x, residual = concatenate(sets)
    state = LayerState(widened(x), None if residual is None else widened(residual))
    images = TAPE_BYTES // _bytes_per_image(graph, inspected, element=state.x.element_size())
    pass_in_parts(
        sparse,
        state,
        images=images,
        head=head,
        backward=lambda tape, gradient: sparse.backward(tape, gradient, tap=tap),
    )
    delta = {index: delta_of(torch.cat([*parts[1:], parts[0]])) for index, parts in products.items()}
    if wrong := [index for index, found in delta.items() if not np.isfinite(found).all()]:
        _ = task.accuracy_before  # features that are not finite are the cause, and say so
        raise NotFiniteError(f"{task.task_id}: the Fisher information of layers {wrong} is not finite: no plan follows")
    return FisherInformation(delta)


def _bytes_per_image(graph: LayerGraph, inspected: Sequence[int], *, element: int) -> int:
    """Return what the pass keeps for one image: inspected activations, and the masks of layers between them."""
    rest = (layer for layer in graph.layers[min(inspected) :] if layer.index not in inspected and layer.has_activation)
    kept = sum(graph.layer(index).output_elements for index in inspected) * element
    return kept + sum(layer.output_elements for layer in rest)


def delta_of(products: Tensor) -> NDArray[np.float64]:
    """Return Delta of each channel from every image's sum of activation x gradient over space, ``[N, C]``."""
    delta: NDArray[np.float64] = (products.double().square().mean(dim=0) / 2).cpu().numpy()
    return delta
