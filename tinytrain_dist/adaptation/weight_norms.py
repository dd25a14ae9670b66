"""L2 norms of a layer's weights: a score blind to the task, and MCUNetV3's order of input channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tinytrain_dist.adaptation.plan_weights import channel_axis
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.graphs.update_plan import Side


def weight_norm(network: FoldedNetwork, layer: int) -> float:
    """Return the L2 norm of the weights of ``layer``, normalisation left out."""
    return float(_weight(network, layer).norm())


def channel_norms(network: FoldedNetwork, layer: int, side: Side) -> NDArray[np.float64]:
    """Return the L2 norm of the weights of each channel of ``side``, float64 ``[in_channels]`` or ``[out_channels]``.

    Source, for the input side: SparseUpdate of MCUNetV3 (Lin et al., NeurIPS 2022).
    """
    axis = channel_axis(network.graph.layer(layer), side)
    weight = _weight(network, layer).double()
    norms: NDArray[np.float64] = weight.transpose(0, axis).flatten(1).norm(dim=1).numpy()
    return norms


def _weight(network: FoldedNetwork, layer: int) -> Tensor:
    """Return the layer's weight on the CPU: the same norms, and so the same plans, wherever the network runs."""
    return network.backbone.unit(layer).conv.weight.detach().cpu()
