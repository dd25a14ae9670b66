"""Orders of a selected layer's channels; all of a layer's channels cost the same, so no order looks at costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.foundation.registry import Registry
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


ChannelCriterion = Callable[[ChannelFacts], PerChannel]
"""Importance of every channel on the side that is selected, ``[num_channels]``; the largest are chosen."""
CHANNEL_CRITERIA: Registry[ChannelCriterion] = Registry(
    "channel criterion",
    package="tinytrain_dist.adaptation",
    modules=lambda: [],
    entry_point_group="tinytrain_dist.channel_criteria",
)
CHANNEL_CRITERIA.register("fisher", _fisher)
CHANNEL_CRITERIA.register("l2_norm", _l2_norm)
CHANNEL_CRITERIA.register("random", _random)


def channel_scores(criterion: str, facts: ChannelFacts) -> PerChannel:
    """Return the importance of every channel; raises ``ConfigError`` where a criterion gives anything else."""
    scores = CHANNEL_CRITERIA[criterion](facts)
    found = getattr(scores, "shape", type(scores).__name__)
    if found != (facts.num_channels,):
        raise ConfigError(
            f"channel criterion {criterion!r}: layer {facts.layer}: returned {found}; allowed: an array of the shape "
            f"({facts.num_channels},), a number per channel"
        )
    return scores
