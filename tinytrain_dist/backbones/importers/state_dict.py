"""Torch state dicts (``.pth``, ``.pt``: the dict itself, or under ``state_dict``) matched in forward order.

Names differ between projects, the order does not: each 4-d tensor is a convolution, the 1-d tensors after it
its normalisation (eps 1e-5 is assumed, torch's default), 2-d tensors are a classifier and are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinytrain_dist.backbones.flat_state import FlatState, join_tensors
from tinytrain_dist.backbones.importers import IMPORTERS, Importer
from tinytrain_dist.backbones.importers.restricted import load_restricted
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.graphs.layer_graph import ConvLayer, LayerGraph

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def read(path: Path, *, graph: LayerGraph) -> FlatState:
    """Return the flat weights of ``graph``; ``CheckpointError`` names the first layer that differs."""
    return join_tensors(graph, matched_tensors(load_restricted(path), graph=graph, path=path))


def matched_tensors(raw: Any, *, graph: LayerGraph, path: Path) -> dict[str, Tensor]:
    """Return the tensors of an opened file under the names of ``flat_state.tensor_shapes``."""
    units = _units(_tensors(raw, path), path)
    if len(units) != len(graph.layers):
        raise CheckpointError(f"{path}: {len(units)} convolutions; {graph.name} has {len(graph.layers)}")
    named: dict[str, Tensor] = {}
    for layer, (name, unit) in zip(graph.layers, units, strict=True):
        _check_unit(layer, name, unit, path)
        named[f"units.{layer.index}.conv.weight"] = unit["conv"]
        named.update({f"units.{layer.index}.norm.{part}": unit[part] for part in _NORM_PARTS})
    return named


def _tensors(raw: Any, path: Path) -> dict[str, Tensor]:
    inner = raw.get("state_dict", raw) if isinstance(raw, dict) else raw
    if not isinstance(inner, dict) or not inner:
        raise CheckpointError(f"{path}: expected a state dict, found {type(inner).__name__}")
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name!r}: expected a tensor, found {type(value).__name__}")
    return inner


def _units(tensors: dict[str, Tensor], path: Path) -> list[tuple[str, dict[str, Tensor]]]:
    units: list[tuple[str, dict[str, Tensor]]] = []
    for name, tensor in tensors.items():
        part = name.rsplit(".", 1)[-1]
        if tensor.dim() == 2:
            break
        if tensor.dim() == 4:
            units.append((name, {"conv": tensor}))
        elif tensor.dim() == 1 and units and part in _NORM_PARTS:
            if part in units[-1][1]:
                raise CheckpointError(f"{path}: {name}: a second {part} after {units[-1][0]}; expected one")
            units[-1][1][part] = tensor
    return units


def _check_unit(layer: ConvLayer, name: str, unit: dict[str, Tensor], path: Path) -> None:
    shape = (layer.out_channels, layer.channels_per_group, layer.kernel, layer.kernel)
    if tuple(unit["conv"].shape) != shape:
        raise CheckpointError(f"{path}: {name}: shape {list(unit['conv'].shape)}; layer {layer.index} takes {shape}")
    for part in _NORM_PARTS:
        found = unit.get(part, torch.empty(0))
        if tuple(found.shape) != (layer.out_channels,):
            raise CheckpointError(
                f"{path}: {part} after {name}: shape {list(found.shape)}; layer {layer.index} takes "
                f"[{layer.out_channels}]"
            )


IMPORTERS.register(
    "state_dict",
    Importer(
        read=read, suffixes=(".pth", ".pt"), source="a torch state dict", licence="as its source says",
        data="as its source says", resolution=128,
    ),
)  # fmt: skip
