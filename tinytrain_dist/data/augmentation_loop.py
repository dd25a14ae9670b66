"""The augmentation of one batch as a loop over pixels: each is read once and written once."""

from __future__ import annotations

from typing import Any

import numpy as np


def augment_pixels(
    images: Any, flipped: Any, brightness: Any, saturation: Any, contrast: Any, shift: Any, fill: Any, result: Any
) -> None:
    """Write the augmented ``images`` to ``result``, ``[n, h, w, 3]`` float32 both (``transforms.apply_augmentation``).

    Compiled by Numba; written without anything Python's own arithmetic does otherwise.
    """
    num_images, height, width, _ = images.shape
    for n in range(num_images):
        total = 0.0
        for y in range(height):
            for x in range(width):
                total += images[n, y, x, 0] + images[n, y, x, 1] + images[n, y, x, 2]
        mean = np.float32(total / (3 * height * width))
        one = np.float32(1.0)
        of_pixel = contrast[n] * saturation[n]
        of_grey = contrast[n] * (one - saturation[n])
        constant = brightness[n] + (one - contrast[n]) * mean
        for y in range(height):
            row = y - shift[n, 0]
            for x in range(width):
                column = x - shift[n, 1]
                if row < 0 or row >= height or column < 0 or column >= width:
                    for c in range(3):
                        result[n, y, x, c] = fill
                    continue
                source = width - 1 - column if flipped[n] else column
                red, green, blue = images[n, row, source, 0], images[n, row, source, 1], images[n, row, source, 2]
                offset = (red + green + blue) / np.float32(3.0) * of_grey + constant
                result[n, y, x, 0] = offset + red * of_pixel
                result[n, y, x, 1] = offset + green * of_pixel
                result[n, y, x, 2] = offset + blue * of_pixel
