"""Published int8 networks of the tiny-training project (MCUNetV3, arXiv 2206.15472): BN folded, ImageNet weights.

A nested dict: ``first_conv``, ``blocks`` (``pointwise1``, ``depthwise``, ``pointwise2``, ``residual``),
``feature_mix`` (empty) and ``classifier``, each convolution with int8 weights and per-channel scales. In real
numbers: w = int8 * w_scales[channel]; b = int32 bias * w_scales * x_scale; ReLU6 exactly where y_zero is -128;
input = pixel / 127.5 - 1, RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.backbones.importers import IMPORTERS, Importer
from tinytrain_dist.backbones.importers.folded import FloatConv, join_folded
from tinytrain_dist.backbones.importers.restricted import load_restricted
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.graphs.architectures import NO_MIX_SUFFIX
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph

RELU6_ZERO_POINT = -128
_PARTS = {"expand": "pointwise1", "depthwise": "depthwise", "project": "pointwise2"}


def read(path: Path, *, graph: LayerGraph) -> FlatState:
    """Return the flat weights of ``graph`` from a published file; ``CheckpointError`` names what differs."""
    raw = _mapping(load_restricted(path), "file", path)
    _check_blocks(raw, graph, path)
    return join_folded(graph, [_convolution(raw, layer, path) for layer in graph.layers])


def read_classifier(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the ImageNet classifier: weight ``[1000, F]`` and bias ``[1000]``, for ``logits = W f + b``."""
    raw = _mapping(load_restricted(path), "file", path)
    head = _mapping(raw.get("classifier"), "classifier", path)
    params = _mapping(head.get("params"), "classifier", path)
    weight = params.get("weight")
    if not isinstance(weight, np.ndarray) or weight.ndim != 4:
        raise CheckpointError(f"{path}: classifier weight: expected a 4-d array, found {type(weight).__name__}")
    classes, features = weight.shape[:2]
    found = _dequantize(params, (classes, features, 1, 1), "classifier", path)
    return found.weight.reshape(classes, features), found.bias


def _check_blocks(raw: dict[str, Any], graph: LayerGraph, path: Path) -> None:
    blocks = list(_blocks(raw, path))
    if len(blocks) != graph.num_blocks:
        raise CheckpointError(f"{path}: {len(blocks)} blocks; {graph.name} has {graph.num_blocks}")
    if raw.get("feature_mix") is None and graph.layers[-1].role == "mix":
        name = graph.name + NO_MIX_SUFFIX
        raise CheckpointError(f"{path}: holds no feature mix layer; import it as {name!r} instead of {graph.name!r}")
    if raw.get("feature_mix") is not None and graph.layers[-1].role != "mix":
        raise CheckpointError(f"{path}: holds a feature mix layer, which {graph.name!r} has not")
    for number, block in enumerate(blocks):
        if block.get("se") is not None:
            raise CheckpointError(f"{path}: block {number} has squeeze-and-excitation, which {graph.name} has not")
        wanted = graph.block_layers(number)
        if (block.get("residual") is not None) != wanted[-1].residual_after:
            raise CheckpointError(f"{path}: block {number}: residual differs from {graph.name}")
        if (block.get("pointwise1") is not None) != (wanted[0].role == "expand"):
            raise CheckpointError(f"{path}: block {number}: expansion differs from {graph.name}")


def _blocks(raw: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    blocks = raw.get("blocks")
    if not isinstance(blocks, list):
        raise CheckpointError(f"{path}: blocks: expected a list, found {type(blocks).__name__}")
    for number, block in enumerate(blocks):
        yield _mapping(block, f"block {number}", path)


def _convolution(raw: dict[str, Any], layer: ConvLayer, path: Path) -> FloatConv:
    if layer.role in _PARTS:
        where = f"block {layer.block} {_PARTS[layer.role]}"
        unit = _mapping(raw["blocks"][layer.block].get(_PARTS[layer.role]), where, path)
    else:
        where = "first_conv" if layer.role == "stem" else "feature_mix"
        unit = _mapping(raw.get(where), where, path)
    params = _mapping(unit.get("params"), where, path)
    if unit.get("stride") != layer.stride or unit.get("groups") != layer.groups:
        raise CheckpointError(
            f"{path}: {where}: stride {unit.get('stride')!r}, groups {unit.get('groups')!r}; "
            f"expected {layer.stride}, {layer.groups}"
        )
    if (params.get("y_zero") == RELU6_ZERO_POINT) != layer.has_activation:
        raise CheckpointError(f"{path}: {where}: activation differs (y_zero {params.get('y_zero')!r})")
    shape = (layer.out_channels, layer.channels_per_group, layer.kernel, layer.kernel)
    return _dequantize(params, shape, where, path)


def _dequantize(params: dict[str, Any], shape: tuple[int, ...], where: str, path: Path) -> FloatConv:
    weight = _array(params, "weight", np.dtype(np.int8), shape, where, path).astype(np.float64)
    scales = _array(params, "w_scales", np.dtype(np.float32), shape[:1], where, path).astype(np.float64)
    bias = _array(params, "bias", np.dtype(np.int32), shape[:1], where, path).astype(np.float64)
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise CheckpointError(f"{path}: {where} w_scales: expected finite numbers of at least 0")
    x_scale = params.get("x_scale")
    if not isinstance(x_scale, float) or not 0 < x_scale < float("inf"):
        raise CheckpointError(f"{path}: {where}: x_scale {x_scale!r}; expected a number above 0")
    column = scales.reshape(-1, *(1,) * (len(shape) - 1))
    return FloatConv(weight=(weight * column).astype(np.float32), bias=(bias * scales * x_scale).astype(np.float32))


def _array(
    params: dict[str, Any], key: str, dtype: np.dtype[Any], shape: tuple[int, ...], where: str, path: Path
) -> npt.NDArray[Any]:
    found = params.get(key)
    if not isinstance(found, np.ndarray) or found.dtype != dtype or found.shape != shape:
        seen = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
        raise CheckpointError(f"{path}: {where} {key}: found {seen}; expected {dtype} {list(shape)}")
    return found


def _mapping(value: Any, where: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {where}: expected a dict, found {type(value).__name__}")
    return value


IMPORTERS.register(
    "tiny_training",
    Importer(
        read=read, suffixes=(".pkl",), source="https://github.com/mit-han-lab/tiny-training", licence="MIT",
        data="ImageNet-1k, int8 values dequantized", resolution=128,
    ),
)  # fmt: skip
