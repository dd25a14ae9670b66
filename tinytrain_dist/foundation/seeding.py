"""Random draws are seeded by what is drawn, never by who draws it."""

from __future__ import annotations

import hashlib

import numpy as np

from tinytrain_dist.foundation.hashing import canonical_json


def seed_of(*parts: str | int | float | bool | None) -> int:
    """Return a 63-bit seed that is a pure function of ``parts`` (the thing that is drawn)."""
    digest = hashlib.sha256(canonical_json(list(parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_of(*parts: str | int | float | bool | None) -> np.random.Generator:
    """Return a NumPy generator (PCG64) seeded by ``parts``."""
    return np.random.Generator(np.random.PCG64(seed_of(*parts)))
