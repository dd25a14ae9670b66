"""Settings of one measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinytrain_dist.foundation.errors import ConfigError, ProfileError
from tinytrain_dist.foundation.paths import check_name
from tinytrain_dist.graphs.architectures import BACKBONES
from tinytrain_dist.graphs.layer_graph import check_resolution


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """What is measured and how often.

    Attributes
    ----------
    profile
        Name of the profile the rows will be calibrated into.
    backbones, resolutions
        Networks whose layers and whole steps are measured.
    batch
        Images that pass at once; times are of one image, of ``optimizer`` and ``load`` of one step.
    num_layers
        Layer shapes drawn from those of the networks; as many as a quarter of them stand off the grid besides.
    rounds
        Times every case is measured, interleaved with the others.
    min_sample_ms
        A case is repeated inside a round until it takes this long.
    seed
        Decides the shapes, the plans and the order.
    """

    profile: str = "this_host"
    backbones: tuple[str, ...] = ("mcunet", "mobilenet_v2", "proxylessnas")
    resolutions: tuple[int, ...] = (64, 96, 160)
    batch: int = 16
    threads: int = 1
    num_layers: int = 64
    rounds: int = 11
    min_sample_ms: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_name(self.profile, what="measure: profile", error=ProfileError)
        for key in ("batch", "threads", "num_layers", "rounds"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "1 or more")
        _require(self.min_sample_ms > 0, "min_sample_ms", self.min_sample_ms, "above 0")
        _require(bool(self.backbones), "backbones", "none", "at least one backbone")
        _require(bool(self.resolutions), "resolutions", "none", "at least one resolution")
        for name in self.backbones:
            BACKBONES[name]
        for resolution in self.resolutions:
            check_resolution(resolution)

    def quick(self) -> MeasureSettings:
        """Return a measurement of about a minute: fewer shapes, resolutions and rounds."""
        return replace(self, resolutions=self.resolutions[:2], num_layers=min(24, self.num_layers), rounds=5)


def _require(holds: bool, key: str, found: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"measure: {key}: found {found!r}; allowed: {allowed}")
