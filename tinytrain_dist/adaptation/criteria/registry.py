"""What a layer score may look at, and the registry of scores."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinytrain_dist.foundation.registry import Registry


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """Facts about one layer of one task.

    Attributes
    ----------
    potential
        Fisher potential P of the layer.
    weight_share, macs_share
        Weights and MACs over the largest of any layer of the network, in (0, 1].
    weight_norm
        L2 norm of the layer's weights.
    draw
        Uniform number in [0, 1), a function of task and layer alone.
    """

    layer: int
    potential: float
    weight_share: float
    macs_share: float
    weight_norm: float
    draw: float


Criterion = Callable[[LayerFacts], float]


def _modules() -> list[str]:
    folder = str(Path(__file__).parent)
    return [m.name for m in pkgutil.iter_modules([folder]) if m.name != "registry"]


CRITERIA: Registry[Criterion] = Registry(
    "criterion",
    package="tinytrain_dist.adaptation.criteria",
    modules=_modules,
    entry_point_group="tinytrain_dist.criteria",
)
