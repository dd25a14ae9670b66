"""The augmented views of mode ``fast``: a few are drawn per task, and every iteration mixes them image by image.

The frozen layers run on each view once. With whole views used in turn the same batches would come back every few
iterations; mixed, two iterations share the views of a few images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.data.transforms import Augmentation
from tinytrain_dist.graphs.layer_graph import LayerGraph

WORTH_KEEPING = 0.5
"""A pseudo-query's state is kept where it is smaller than this share of its images."""
POOL_BYTES = 64 * 2**20
"""States of a whole pool, in float32, at one cut at most."""


class ViewPool:
    """The random numbers of so many views of the same images."""

    def __init__(self, views: Sequence[Augmentation]) -> None:
        self._views = tuple(views)
        self._numbers = {name: torch.stack([getattr(view, name) for view in views]) for name in vars(views[0])}

    def __getitem__(self, number: int) -> Augmentation:
        """Return those of one view."""
        return self._views[number]

    def of(self, picks: Tensor) -> Augmentation:
        """Return those of image i in view ``picks[i]``."""
        rows = torch.arange(len(picks))
        return Augmentation(**{name: numbers[picks, rows] for name, numbers in self._numbers.items()})


def is_worth_keeping(graph: LayerGraph, cut: int, *, images: int) -> bool:
    """Say whether a pool of so many ``images`` is kept at ``cut``: by their shapes alone, since a gathered state and
    a computed one may differ in the last digit."""
    if cut == len(graph.layers):
        elements = graph.layers[-1].output_elements
    else:
        elements, block = graph.layers[cut].input_elements, graph.block_layers(graph.layers[cut].block)
        if block[0].index < cut and any(layer.residual_after for layer in block):
            elements += block[0].input_elements
    of_image = graph.layers[0].input_elements
    return cut > 0 and elements < WORTH_KEEPING * of_image and 4 * elements * images <= POOL_BYTES


def gathered(picks: Tensor, state_of: Callable[[int], LayerState]) -> LayerState:
    """Return the state whose image i is that of view ``picks[i]``."""
    rows = {int(number): (picks == number).nonzero()[:, 0] for number in picks.unique()}
    states = {number: state_of(number) for number in rows}
    if len(rows) == 1:
        return next(iter(states.values()))
    residuals = {number: state.residual for number, state in states.items() if state.residual is not None}
    x = _merged({number: state.x for number, state in states.items()}, rows)
    return LayerState(x, _merged(residuals, rows) if residuals else None)


def _merged(maps: dict[int, Tensor], rows: dict[int, Tensor]) -> Tensor:
    """Return maps whose ``rows[number]`` come from ``maps[number]``, channels_last as they are."""
    result = torch.empty_like(next(iter(maps.values())))
    target = result.permute(0, 2, 3, 1)
    for number, own in rows.items():
        target.index_copy_(0, own, maps[number].permute(0, 2, 3, 1).index_select(0, own))
    return result
