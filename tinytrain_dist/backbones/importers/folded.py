"""Convolutions whose normalisation was folded in -> convolution and an identity-like normalisation.

One architecture serves all weights: scale 1, shift = bias, mean 0, variance 1 - eps, so that the normalisation
adds the bias and does nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.backbones.network import NORM_EPS
from tinytrain_dist.graphs.layer_graph import LayerGraph


@dataclass(frozen=True, eq=False, kw_only=True)
class FloatConv:
    """Weight ``[out, in / groups, k, k]`` and bias ``[out]`` of one convolution."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def join_folded(graph: LayerGraph, convolutions: Sequence[FloatConv]) -> FlatState:
    """Return the flat array of ``graph`` (order of ``flat_state.tensor_shapes``)."""
    parts: list[npt.NDArray[np.float32]] = []
    for layer, unit in zip(graph.layers, convolutions, strict=True):
        ones = np.ones(layer.out_channels, dtype=np.float32)
        variance = ones * np.float32(1.0 - NORM_EPS)
        parts += [unit.weight.reshape(-1), ones, unit.bias, np.zeros_like(ones), variance]
    return np.concatenate(parts)
