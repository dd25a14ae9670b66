"""Orders of a selected layer's channels; all of a layer's channels cost the same, so no order looks at costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.graphs.update_plan import Side

PerChannel = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ChannelFacts:
    """What the order of one layer's channels may look at.

    Attributes
    ----------
    delta
        Fisher information of every output channel, ``[out_channels]``.
    norms
        L2 norm of the weights of every channel of ``side``, computed where it is asked for.
    num_channels
        Channels on ``side``.
    """

    task_id: str
    layer: int
    side: Side
    num_channels: int
    delta: PerChannel
    norms: Callable[[], PerChannel]


def _fisher(facts: ChannelFacts) -> PerChannel:
    """Return Delta (TinyTrain, Eq. 2); input channels have none and go by weight norm (MCUNetV3)."""
    return facts.delta if facts.side == "output" else facts.norms()


def _l2_norm(facts: ChannelFacts) -> PerChannel:
    return facts.norms()


def _random(facts: ChannelFacts) -> PerChannel:
    return generator_of("channel criterion", facts.task_id, facts.layer).random(facts.num_channels)


CHANNEL_CRITERIA: Mapping[str, Callable[[ChannelFacts], PerChannel]] = {
    "fisher": _fisher,
    "l2_norm": _l2_norm,
    "random": _random,
}
"""Name -> importance of every channel on the side that is selected; the largest are chosen."""
