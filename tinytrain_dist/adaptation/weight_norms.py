"""L2 norms of a layer's weights: a score blind to the task, and MCUNetV3's order of input channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.adaptation.plan_weights import channel_axis
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.graphs.update_plan import Side


def weight_norm(network: FoldedNetwork, layer: int) -> float:
    """Return the L2 norm of the weights of ``layer``, normalisation left out."""
    return float(network.backbone.unit(layer).conv.weight.detach().norm())


def channel_norms(network: FoldedNetwork, layer: int, side: Side) -> NDArray[np.float64]:
    """Return the L2 norm of the weights of each channel of ``side``, float64 ``[in_channels]`` or ``[out_channels]``.

    Source, for the input side: SparseUpdate of MCUNetV3 (Lin et al., NeurIPS 2022).
    """
    axis = channel_axis(network.graph.layer(layer), side)
    weight = network.backbone.unit(layer).conv.weight.detach().double()
    norms: NDArray[np.float64] = weight.transpose(0, axis).flatten(1).norm(dim=1).numpy()
    return norms
