"""A backbone's weights as named tensors, and as one flat float32 array (the form that travels)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tinytrain_dist.backbones.network import Backbone
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.graphs.layer_graph import LayerGraph

FlatState = npt.NDArray[np.float32]

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def tensor_shapes(graph: LayerGraph) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor, in the order of the flat array.

    For each layer in forward order: ``units.I.conv.weight`` ``[out, in / groups, k, k]``, then
    ``units.I.norm.weight``, ``.bias``, ``.running_mean``, ``.running_var`` ``[out]``.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for x in graph.layers:
        shapes[f"units.{x.index}.conv.weight"] = (x.out_channels, x.channels_per_group, x.kernel, x.kernel)
        shapes.update({f"units.{x.index}.norm.{part}": (x.out_channels,) for part in NORM_PARTS})
    return shapes


def flat_size(graph: LayerGraph) -> int:
    """Return the length of the flat array."""
    return sum(int(np.prod(shape)) for shape in tensor_shapes(graph).values())


def named_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Return the backbone's own tensors (no copies) by name, in the order of ``tensor_shapes``."""
    own = backbone.state_dict(keep_vars=True)
    return {name: own[name].detach() for name in tensor_shapes(backbone.graph)}


def state_to_flat(backbone: Backbone) -> FlatState:
    """Return weights and normalisation statistics as a new array ``[flat_size]``, C order within a tensor."""
    return _join(named_tensors(backbone).values())


@torch.no_grad()
def flat_to_state(backbone: Backbone, flat: FlatState) -> None:
    """Copy a flat array into the backbone, in the module's own dtype; ``CheckpointError`` on a wrong length."""
    named = named_tensors(backbone)
    _check_size(backbone.graph, flat)
    whole = torch.tensor(flat, device=next(iter(named.values())).device)  # one transfer, however many tensors
    parts = torch.split(whole, [tensor.numel() for tensor in named.values()])
    for tensor, part in zip(named.values(), parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def split_flat(graph: LayerGraph, flat: FlatState) -> dict[str, FlatState]:
    """Return name -> view into ``flat``, in the tensor's shape."""
    _check_size(graph, flat)
    views, offset = {}, 0
    for name, shape in tensor_shapes(graph).items():
        stop = offset + int(np.prod(shape))
        views[name] = flat[offset:stop].reshape(shape)
        offset = stop
    return views


def join_tensors(graph: LayerGraph, tensors: Mapping[str, Tensor]) -> FlatState:
    """Return the flat array of tensors given by name; names and shapes must be those of ``graph``."""
    return _join(tensors[name] for name in tensor_shapes(graph))


def _join(tensors: Iterable[Tensor]) -> FlatState:
    parts = [x.to(dtype=torch.float32).contiguous().reshape(-1) for x in tensors]
    joined: FlatState = torch.cat(parts).cpu().numpy()
    return joined


def _check_size(graph: LayerGraph, flat: FlatState) -> None:
    if flat.shape != (flat_size(graph),):
        raise CheckpointError(f"flat weights of shape {flat.shape}; {graph.name} takes ({flat_size(graph)},)")
