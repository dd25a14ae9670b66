"""Which split each class of a bundled domain belongs to: a table of shares, and a hash of the class name."""

from __future__ import annotations

import csv
import functools
import hashlib
from pathlib import Path

from tinytrain_dist.data.image_table import SPLITS, Split

BUNDLED = Path(__file__).resolve().parent / "bundled"


@functools.cache
def split_shares() -> dict[str, tuple[float, ...]]:
    """Return domain -> share of classes in train, valid and test, from ``bundled/splits.csv``."""
    with (BUNDLED / "splits.csv").open(encoding="utf-8", newline="") as stream:
        return {row["domain"]: tuple(float(row[split]) for split in SPLITS) for row in csv.DictReader(stream)}


def bundled_splits(domain: str, class_names: tuple[str, ...]) -> tuple[Split, ...]:
    """Return the split of each class; a class's place depends on its name alone, not on the other classes."""
    shares = split_shares()[domain]
    return tuple(_split_of(name, shares) for name in class_names)


def _split_of(class_name: str, shares: tuple[float, ...]) -> Split:
    place = int.from_bytes(hashlib.sha256(class_name.encode()).digest()[:8], "big") / 2**64
    upper = 0.0
    for split, share in zip(SPLITS, shares, strict=True):
        upper += share
        if place < upper:
            return split
    return SPLITS[-1]
