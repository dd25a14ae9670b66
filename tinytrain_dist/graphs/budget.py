"""``Budget``: what one device lets an update plan use."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain_dist.foundation.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper bounds of an update plan.

    Attributes
    ----------
    memory_bytes
        Bytes that updated weights, optimizer and activations may take together.
    backward_macs
        MACs of the backward pass of one image.
    """

    memory_bytes: int
    backward_macs: int

    def __post_init__(self) -> None:
        for key, unit in (("memory_bytes", "bytes"), ("backward_macs", "MACs")):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise ConfigError(f"budget.{key}: found {value!r}; allowed: a whole number of {unit} above 0")
