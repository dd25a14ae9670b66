"""Checkpoints: a safetensors file with a card. Nothing in a file is trusted, and nothing in it can run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch

from tinytrain_dist.backbones.card import CARD_KEY, CheckpointCard, card_of, read_header
from tinytrain_dist.backbones.flat_state import (
    NORM_PARTS,
    FlatState,
    flat_to_state,
    split_flat,
    state_to_flat,
    tensor_shapes,
)
from tinytrain_dist.backbones.folded import Folded, fold, overflowing
from tinytrain_dist.backbones.network import Backbone, build_backbone
from tinytrain_dist.foundation.errors import CheckpointError, TinyTrainError
from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.layer_graph import RESOLUTION_DEFAULT, LayerGraph

HEAD_SCALE = "head.scale"
HASH_LENGTH = 16
_MAX_NAMED = 5


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """Weights read from a file.

    Attributes
    ----------
    backbone
        Name of the architecture the weights are used with.
    state
        Flat float32 array (``flat_state``).
    card
        Provenance.
    hash
        ``checkpoint_hash`` of what was read: the ``checkpoint`` key of result rows.
    head_scale
        Learned scale of the cosine head; ``None`` where the file holds none.
    """

    backbone: str
    state: FlatState
    card: CheckpointCard
    hash: str
    head_scale: float | None = None

    def build(self, *, resolution: int = RESOLUTION_DEFAULT) -> Backbone:
        """Return a backbone with these weights, in eval mode."""
        backbone = build_backbone(self.backbone, resolution=resolution)
        flat_to_state(backbone, self.state)
        return backbone


def checkpoint_hash(graph: LayerGraph, flat: FlatState, *, head_scale: float | None = None) -> str:
    """Return the content hash of weights: 16 hex digits, the same for equal weights wherever they lie."""
    scale = b"" if head_scale is None else np.float32(head_scale).tobytes()
    data = np.ascontiguousarray(flat, dtype="<f4").tobytes()
    return bytes_hash(graph.architecture_hash.encode() + data + scale, length=HASH_LENGTH)


def save_checkpoint(path: Path, backbone: Backbone, card: CheckpointCard, *, head_scale: float | None = None) -> str:
    """Write ``backbone`` to ``path`` at once or not at all, and return its content hash.

    ``backbone``, ``architecture_hash`` and ``content_hash`` of the card are filled in here.
    """
    graph, flat = backbone.graph, state_to_flat(backbone)
    found = checkpoint_hash(graph, flat, head_scale=head_scale)
    known = {"backbone": graph.name, "architecture_hash": graph.architecture_hash, "content_hash": found}
    tensors = dict(split_flat(graph, flat))
    if head_scale is not None:
        tensors[HEAD_SCALE] = np.array(head_scale, dtype=np.float32)
    _check_values(tensors, graph, path)
    text = card.model_copy(update=known).model_dump_json()
    atomic_write(path, safetensors.numpy.save(tensors, metadata={CARD_KEY: text}))
    return found


def save_with_card(found: Checkpoint, path: Path, card: CheckpointCard) -> None:
    """Write a checkpoint with another card to ``path``; its content hash stays."""
    written = save_checkpoint(path, found.build(), card, head_scale=found.head_scale)
    assert written == found.hash, f"{path}: {written} is not {found.hash}"


def load_checkpoint(path: Path, *, backbone: str | None = None) -> Checkpoint:
    """Read a checkpoint, refusing everything that is not exactly one.

    Parameters
    ----------
    backbone
        Architecture the weights must fit (``None``: the one the card names).

    Raises
    ------
    CheckpointError
        Another format (a pickle is never opened), truncated, oversized, damaged or not finite, as they are or with
        normalisation folded in; missing, extra or wrongly shaped tensors; another architecture. The message names the
        file and the tensors.
    """
    header = read_header(path)
    card = card_of(header, path)
    graph = _expected_graph(card, backbone, path)
    _check_layout(header, graph, path)
    tensors = _read_tensors(path)
    _check_values(tensors, graph, path)
    flat = np.concatenate([tensors[name].reshape(-1) for name in tensor_shapes(graph)])
    scale = float(tensors[HEAD_SCALE].item()) if HEAD_SCALE in tensors else None
    found = checkpoint_hash(graph, flat, head_scale=scale)
    if found != card.content_hash:
        raise CheckpointError(f"{path}: the tensors' hash is {found}, the card says {card.content_hash!r}: damaged")
    return Checkpoint(backbone=graph.name, state=flat, card=card, hash=found, head_scale=scale)


def _expected_graph(card: CheckpointCard, backbone: str | None, path: Path) -> LayerGraph:
    try:
        graph = layer_graph(backbone or card.backbone)
    except TinyTrainError as exc:
        raise CheckpointError(f"{path}: {exc}") from exc
    if graph.architecture_hash != card.architecture_hash:
        wanted = f"expected {graph.name!r} ({graph.architecture_hash})"
        raise CheckpointError(f"{path}: architecture {card.backbone!r} ({card.architecture_hash}); {wanted}")
    return graph


def _check_layout(header: dict[str, Any], graph: LayerGraph, path: Path) -> None:
    expected = tensor_shapes(graph)
    found = {name: entry for name, entry in header.items() if name != "__metadata__"}
    expected |= {HEAD_SCALE: ()} if HEAD_SCALE in found else {}
    _refuse(path, "missing tensors", [name for name in expected if name not in found])
    _refuse(path, "unknown tensors", [name for name in found if name not in expected])
    wrong = []
    for name, shape in expected.items():
        entry = found[name] if isinstance(found[name], dict) else {}
        if entry.get("dtype") != "F32" or entry.get("shape") != list(shape):
            wrong.append(f"{name} ({entry.get('dtype')} {entry.get('shape')}; expected F32 {list(shape)})")
    _refuse(path, "wrongly shaped tensors", wrong)


def _read_tensors(path: Path) -> dict[str, FlatState]:
    try:
        return safetensors.numpy.load(path.read_bytes())
    except safetensors.SafetensorError as exc:
        raise CheckpointError(f"{path}: damaged or truncated safetensors file: {exc}") from exc
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _check_values(tensors: dict[str, FlatState], graph: LayerGraph, path: Path) -> None:
    _refuse(path, "NaN or infinite values in", [name for name, x in tensors.items() if not np.isfinite(x).all()])
    negative = [name for name, x in tensors.items() if name.endswith("running_var") and (x < 0).any()]
    _refuse(path, "negative variances in", negative)
    wrong = overflowing(graph, [_folded(tensors, layer.index) for layer in graph.layers])
    what = "weights that overflow once normalisation is folded into the convolution, in"
    _refuse(path, what, [f"units.{index}" for index in wrong])


def _folded(tensors: dict[str, FlatState], index: int) -> Folded:
    conv, weight, bias, mean, variance = (
        torch.tensor(tensors[f"units.{index}.{name}"]) for name in ("conv.weight", *(f"norm.{x}" for x in NORM_PARTS))
    )
    return fold(conv, scale=weight, shift=bias, mean=mean, variance=variance)


def _refuse(path: Path, problem: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        raise CheckpointError(f"{path}: {problem}: {', '.join(names[:_MAX_NAMED])}{more}")
