"""Weights of other projects -> our backbones. One file per format; a registry finds it by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.foundation.registry import Registry
from tinytrain_dist.graphs.layer_graph import LayerGraph


class ReadWeights(Protocol):
    """Reads a file into the flat array of ``graph``; raises ``CheckpointError`` naming what does not fit."""

    def __call__(self, path: Path, *, graph: LayerGraph) -> FlatState: ...


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One format: how it is read, and what its card should say.

    Attributes
    ----------
    suffixes, prefixes
        File name endings the format is guessed from, and beginnings where the ending alone does not tell.
    source, licence, data, resolution
        Where such files come from, under which licence, what they were trained on and at how many pixels.
    """

    read: ReadWeights
    suffixes: tuple[str, ...]
    source: str
    licence: str
    data: str
    resolution: int
    prefixes: tuple[str, ...] = ("",)

    def takes(self, file_name: str) -> bool:
        """Return whether a file is of this format, by its name."""
        return file_name.endswith(self.suffixes) and file_name.startswith(self.prefixes)


IMPORTERS: Registry[Importer] = Registry(
    "weight format",
    package="tinytrain_dist.backbones.importers",
    modules=lambda: ["tiny_training", "state_dict", "wheels"],
    entry_point_group="tinytrain_dist.importers",
)
