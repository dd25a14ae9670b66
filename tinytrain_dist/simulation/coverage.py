"""Which cells of the grid are done: one bit per (domain, method, device, task index)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.simulation.ranges import Ranges, ranges_of
from tinytrain_dist.simulation.request import Cells

BLOCK = 4096
"""Task indices looked at together: whole bytes of a bitmap."""
Bits = NDArray[np.bool_]


class Bitmap:
    """A growing set of task indices, eight to a byte."""

    def __init__(self) -> None:
        self._bytes = np.zeros(0, dtype=np.uint8)

    def assign(self, start: int, stop: int, value: bool) -> None:
        """Put the indices ``start`` to ``stop`` (exclusive) in, or take them out."""
        first, last = start // 8, -(-stop // 8)
        if last > len(self._bytes):
            self._bytes = np.pad(self._bytes, (0, max(last - len(self._bytes), len(self._bytes) // 2)))
        bits = np.unpackbits(self._bytes[first:last])
        bits[start - 8 * first : stop - 8 * first] = value
        self._bytes[first:last] = np.packbits(bits)

    def bits(self, start: int, stop: int) -> Bits:
        """Return one truth value for each of the indices ``start`` to ``stop`` (exclusive)."""
        first, last = start // 8, -(-stop // 8)
        known = np.unpackbits(self._bytes[first:last])[start - 8 * first : stop - 8 * first]
        return np.pad(known, (0, stop - start - len(known))).astype(np.bool_)

    def count(self) -> int:
        """Return how many indices are in the set."""
        return int(np.bitwise_count(self._bytes).sum())


class Coverage:
    """The cells that are done. Memory: one bit a cell, whatever the number of chunks they came in."""

    def __init__(self) -> None:
        self._maps: dict[tuple[str, str, str], Bitmap] = {}

    def mark(self, domain: str, ranges: Ranges, cells: Cells, *, done: bool = True) -> None:
        """Mark the cells of these tasks as done, or as missing."""
        for method, device in _pairs(cells):
            bitmap = self._maps.setdefault((domain, method, device), Bitmap())
            for start, stop in ranges:
                bitmap.assign(start, stop, done)

    def clear_device(self, device: str) -> None:
        """Mark every cell of a device as missing."""
        self._maps = {key: bitmap for key, bitmap in self._maps.items() if key[2] != device}

    def touches(self, domain: str, ranges: Ranges, cells: Cells) -> bool:
        """Say whether any of the cells is done."""
        maps = [self._maps.get((domain, method, device)) for method, device in _pairs(cells)]
        return any(found.bits(*pair).any() for found in maps if found is not None for pair in ranges)

    def count(self) -> int:
        """Return the number of cells that are done."""
        return sum(bitmap.count() for bitmap in self._maps.values())

    def missing(self, domain: str, start: int, stop: int, wanted: Cells) -> Iterator[tuple[Ranges, Cells]]:
        """Yield the tasks of ``start`` to ``stop`` with missing cells, those that miss the same ones together."""
        pairs = list(_pairs(wanted))
        table = np.stack([self._missing_bits(domain, pair, start, stop) for pair in pairs])  # [cells, tasks]
        if table.all():
            yield ((start, stop),), wanted
            return
        patterns, which = np.unique(np.packbits(table, axis=0), axis=1, return_inverse=True)
        which = which.reshape(-1)
        for number in range(patterns.shape[1]):
            members = np.flatnonzero(which == number)
            lacking = table[:, members[0]]
            if lacking.any():
                cells = _cells(wanted, {pair for pair, lacks in zip(pairs, lacking, strict=True) if lacks})
                yield ranges_of(members + start), cells

    def _missing_bits(self, domain: str, pair: tuple[str, str], start: int, stop: int) -> Bits:
        bitmap = self._maps.get((domain, *pair))
        return np.ones(stop - start, dtype=np.bool_) if bitmap is None else ~bitmap.bits(start, stop)


def _pairs(cells: Cells) -> Iterator[tuple[str, str]]:
    for method, devices in cells:
        for device in devices:
            yield method, device


def _cells(wanted: Cells, lacking: set[tuple[str, str]]) -> Cells:
    per_method = ((m, tuple(d for d in devices if (m, d) in lacking)) for m, devices in wanted)
    return tuple((method, devices) for method, devices in per_method if devices)
