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
    overdrawn_bytes
        Bytes by which what the device has free lies below ``memory_bytes``: above 0 only where it has nothing free
        and ``memory_bytes`` is 1 in place of that.
    """

    memory_bytes: int
    backward_macs: int
    overdrawn_bytes: int = 0

    def __post_init__(self) -> None:
        for key, unit in (("memory_bytes", "bytes"), ("backward_macs", "MACs")):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise ConfigError(f"budget.{key}: found {value!r}; allowed: a whole number of {unit} above 0")
        over = self.overdrawn_bytes
        if not isinstance(over, int) or isinstance(over, bool) or over < 0:
            raise ConfigError(f"budget.overdrawn_bytes: found {over!r}; allowed: a whole number of bytes, 0 or more")

    def missing_bytes(self, needed: int) -> int:
        """Return how much more memory a device must have free for ``needed`` bytes; 0 where they fit."""
        return needed - self.memory_bytes + self.overdrawn_bytes if needed > self.memory_bytes else 0
