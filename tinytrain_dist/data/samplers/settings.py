"""Settings of the episode samplers: small, frozen, hashable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tinytrain_dist.foundation.errors import ConfigError, nearest

SamplerName = Literal["fixed", "meta_dataset"]


@dataclass(frozen=True, kw_only=True)
class EpisodeSettings:
    """Which sampler draws the episodes.

    Parameters
    ----------
    sampler
        ``fixed``, or ``meta_dataset`` (Triantafillou et al., ICLR 2020), which draws way, shots and query itself.
    way, shot, query
        Of ``fixed``: classes, support and query images per class; a small class has fewer query images.
    clamp_way
        Of ``fixed``: take as many classes as there are when there are fewer than ``way``, instead of an error.
    """

    sampler: SamplerName = "fixed"
    way: int = 5
    shot: int = 5
    query: int = 10
    clamp_way: bool = False

    def __post_init__(self) -> None:
        allowed = get_args(SamplerName)
        if self.sampler not in allowed:
            raise ConfigError(f"unknown sampler {self.sampler!r}; {nearest(str(self.sampler), allowed)}")
        for key, least in (("way", 2), ("shot", 1), ("query", 1)):
            value = getattr(self, key)
            if self.sampler == "fixed" and value < least:
                raise ConfigError(f"episode {key} is {value}; set {key} to {least} or more")

    @property
    def key(self) -> str:
        """Short name of all that decides a draw; ``clamp_way`` does not: where it does nothing the draw is equal."""
        return "meta_dataset" if self.sampler == "meta_dataset" else f"fixed-{self.way}w{self.shot}s{self.query}q"
