"""Batch normalisation with ReLU6 and its gradient as loops over rows of channels: each value is read as few times as
the mathematics allows. Compiled by Numba; sums run in blocks of rows, so that float32 is enough within a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCK = 256


def moments(z: Any, mean: Any, variance: Any) -> None:
    """Write mean and (biased) variance of each column of ``z`` ``[rows, C]``; float64 [C] both."""
    rows, channels = z.shape
    part, squares = np.zeros(channels, dtype=np.float32), np.zeros(channels, dtype=np.float32)
    # around the first row, so that the squares do not cancel
    start = z[0].copy()
    for first in range(0, rows, BLOCK):
        part[:] = 0.0
        squares[:] = 0.0
        for i in range(first, min(first + BLOCK, rows)):
            for c in range(channels):
                value = z[i, c] - start[c]
                part[c] += value
                squares[c] += value * value
        for c in range(channels):
            mean[c] += part[c]
            variance[c] += squares[c]
    for c in range(channels):
        mean[c] /= rows
        variance[c] = max(variance[c] / rows - mean[c] * mean[c], 0.0)
        mean[c] += start[c]


def scale_and_cap(z: Any, factor: Any, shift: Any, capped: bool, result: Any) -> None:
    """Write ``factor * z + shift``, between 0 and 6 where ``capped``; rows of channels, float32."""
    rows, channels = z.shape
    if not capped:
        for i in range(rows):
            for c in range(channels):
                result[i, c] = factor[c] * z[i, c] + shift[c]
        return
    for i in range(rows):
        for c in range(channels):
            value = factor[c] * z[i, c] + shift[c]
            result[i, c] = min(max(value, np.float32(0.0)), np.float32(6.0))


def gradient_sums(grad: Any, z: Any, factor: Any, shift: Any, capped: bool, total: Any, product: Any) -> None:
    """Write each column's sum of the gradient that passes the cap, and of its product with ``z``; float64 [C] both."""
    rows, channels = z.shape
    part, parts = np.zeros(channels, dtype=np.float32), np.zeros(channels, dtype=np.float32)
    for first in range(0, rows, BLOCK):
        part[:] = 0.0
        parts[:] = 0.0
        for i in range(first, min(first + BLOCK, rows)):
            for c in range(channels):
                passed = grad[i, c]
                if capped:
                    value = factor[c] * z[i, c] + shift[c]
                    inside = (value > np.float32(0.0)) & (value < np.float32(6.0))
                    passed = passed * np.float32(inside)
                part[c] += passed
                parts[c] += passed * z[i, c]
        for c in range(channels):
            total[c] += part[c]
            product[c] += parts[c]


def input_gradient(
    grad: Any, z: Any, factor: Any, shift: Any, capped: bool, of_z: Any, constant: Any, result: Any
) -> None:
    """Write ``factor * (gradient that passes the cap) + of_z * z + constant``; rows of channels, float32."""
    rows, channels = z.shape
    for i in range(rows):
        for c in range(channels):
            passed = grad[i, c]
            if capped:
                value = factor[c] * z[i, c] + shift[c]
                inside = (value > np.float32(0.0)) & (value < np.float32(6.0))
                passed = passed * np.float32(inside)
            result[i, c] = factor[c] * passed + of_z[c] * z[i, c] + constant[c]
