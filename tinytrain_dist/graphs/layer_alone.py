"""``layer_alone_<layer>[_<quarter>]``: the name of a method that updates one layer and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.layer_graph import LayerGraph
from tinytrain_dist.graphs.update_plan import LayerUpdate, UpdatePlan

QUARTERS: Final = ("top", "second", "third", "bottom")
"""A layer's output channels in four groups, most important first; sizes differ by one at most."""
PATTERN = "layer_alone_<layer>[_top|_second|_third|_bottom]"
_NAME = re.compile(rf"layer_alone_(0|[1-9][0-9]{{0,3}})(?:_({'|'.join(QUARTERS)}))?")


@dataclass(frozen=True, kw_only=True)
class LayerAlone:
    """What such a name says.

    Attributes
    ----------
    layer
        Index of the convolution.
    quarter
        One of ``QUARTERS``; ``None``: the whole layer.
    """

    layer: int
    quarter: str | None

    @property
    def name(self) -> str:
        """The method's name."""
        return "_".join(["layer_alone", str(self.layer), *([self.quarter] if self.quarter else [])])

    def check(self, graph: LayerGraph) -> None:
        """Raise ``ConfigError`` where ``graph`` has no such layer, or the layer too few channels for quarters."""
        last = len(graph.layers) - 1
        if self.layer > last:
            raise ConfigError(f"method {self.name!r}: unknown layer; {graph.name} has layers 0 to {last}")
        channels = graph.layer(self.layer).out_channels
        if self.quarter is not None and channels < len(QUARTERS):
            raise ConfigError(f"method {self.name!r}: layer {self.layer} of {graph.name} has {channels} channels only")

    def plan(self, graph: LayerGraph, *, order: Sequence[int] | None = None) -> UpdatePlan:
        """Return the layer's update; ``order`` names its output channels, most important first (none: as they are).

        Raises ``ConfigError`` as ``check``.
        """
        self.check(graph)
        channels = range(graph.layer(self.layer).out_channels) if order is None else order
        chosen = None if self.quarter is None else _quarter(channels, QUARTERS.index(self.quarter))
        return UpdatePlan(backbone=graph.name, updates=(LayerUpdate(layer=self.layer, channels=chosen),))


def layer_alone(name: str) -> LayerAlone | None:
    """Return what ``name`` says, ``None`` where it does not follow ``PATTERN``."""
    match = _NAME.fullmatch(name)
    return None if match is None else LayerAlone(layer=int(match[1]), quarter=match[2])


def _quarter(order: Sequence[int], number: int) -> tuple[int, ...]:
    ends = [round(len(order) * part / len(QUARTERS)) for part in range(len(QUARTERS) + 1)]
    return tuple(sorted(order[ends[number] : ends[number + 1]]))
