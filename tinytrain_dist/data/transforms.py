"""Images as tensors: scaling to the network's input range, and the augmentation of fine-tuning and meta-training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinytrain_dist.data.augmentation_loop import augment_pixels
from tinytrain_dist.foundation.compiling import compiled, compiler

PROBABILITY = 0.9
FLIP_PROBABILITY = 0.5
BRIGHTNESS = 0.5
"""Largest shift, in the network's input range [-1, 1]: the original acts on the network's input too."""
SATURATION = (0.0, 2.0)
CONTRAST = (0.5, 1.5)
TRANSLATION = 0.125
FILL = 0.5
"""Pixels moved in from outside: the middle of [0, 1], which is the network's zero."""


def to_float(images: Tensor) -> Tensor:
    """Scale uint8 pixels of any shape to float32 in [0, 1]."""
    assert images.dtype == torch.uint8, f"pixels are uint8, found {images.dtype}"
    return images.to(torch.float32) / 255.0


def to_unit(images: Tensor) -> Tensor:
    """Return the network's input, float32 in [-1, 1]: pixel / 127.5 - 1 of uint8, 2 x - 1 of floats in [0, 1]."""
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 127.5 - 1.0
    return images * 2.0 - 1.0


@dataclass(frozen=True, eq=False)
class Augmentation:
    """The random numbers of n images; image i's result depends on row i alone.

    Parameters
    ----------
    flipped
        bool [n].
    brightness, saturation, contrast
        float32 [n]; an offset in [0, 1] units, and two factors.
    shift
        int64 [n, 2], pixels moved down and right.
    """

    flipped: Tensor
    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    shift: Tensor

    def __getitem__(self, images: slice) -> Augmentation:
        """Return the draws of a slice of the images (a micro-batch)."""
        return Augmentation(**{name: value[images] for name, value in vars(self).items()})


def draw_augmentation(num_images: int, *, height: int, width: int, generator: torch.Generator) -> Augmentation:
    """Draw all random numbers for ``num_images`` at once, on the generator's device, image by image.

    An image whose 0.9-coin says no gets the numbers that change nothing.
    """
    u = torch.rand(num_images, 7, generator=generator, device=generator.device)
    applied = u[:, 0] < PROBABILITY
    limits = torch.tensor([int(height * TRANSLATION + 0.5), int(width * TRANSLATION + 0.5)], device=u.device)
    return Augmentation(
        flipped=applied & (u[:, 1] < FLIP_PROBABILITY),
        # half: the range [-1, 1] is twice as long as [0, 1]
        brightness=torch.where(applied, (2.0 * u[:, 2] - 1.0) * (BRIGHTNESS / 2.0), 0.0),
        saturation=torch.where(applied, SATURATION[0] + u[:, 3] * (SATURATION[1] - SATURATION[0]), 1.0),
        contrast=torch.where(applied, CONTRAST[0] + u[:, 4] * (CONTRAST[1] - CONTRAST[0]), 1.0),
        shift=applied[:, None] * ((u[:, 5:7] * (2 * limits + 1)).long() - limits),
    )


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Augment float images [n, 3, h, w] in [0, 1]; same shape, values may leave [0, 1] as in the original.

    With probability 0.9 per image: horizontal flip (half of them), brightness +-0.5 of the network's input range,
    saturation x U[0, 2), contrast x U[0.5, 1.5), translation by up to 12.5 % of each side. Deterministic given the
    generator; draw from a CPU generator for the same numbers on any device.
    Source: Hu et al., "Pushing the Limits of Simple Pipelines for Few-Shot Learning", CVPR 2022 (after DiffAugment).
    There one coin decides for the whole batch; here each image has its own, so that an image's result does not depend
    on how a task is cut into batches.
    """
    num_images, _, height, width = images.shape
    return apply_augmentation(
        images, draws=draw_augmentation(num_images, height=height, width=width, generator=generator)
    )


def apply_augmentation(images: Tensor, *, draws: Augmentation) -> Tensor:
    """Apply given draws to float images [n, 3, h, w] in [0, 1]."""
    assert images.is_floating_point(), f"augmentation works on floats in [0, 1], found {images.dtype}; use to_float"
    if images.dtype == torch.float32 and images.device.type == "cpu" and compiler() is not None:
        return _compiled_augmentation(images, draws)
    return _move(_colour(images, draws), draws)


def _compiled_augmentation(images: Tensor, draws: Augmentation) -> Tensor:
    result = torch.empty_like(images)
    numbers = (draws.flipped, draws.brightness, draws.saturation, draws.contrast, draws.shift)
    source, target = (t.permute(0, 2, 3, 1).numpy() for t in (images.detach(), result))
    compiled(augment_pixels)(source, *(t.numpy() for t in numbers), np.float32(FILL), target)
    return result


def _colour(images: Tensor, draws: Augmentation) -> Tensor:
    """Brightness, then saturation about each pixel's grey, then contrast about the image's mean, as one affine map.

    contrast * (saturation * x + (1 - saturation) * grey + brightness) + (1 - contrast) * (mean + brightness)
    """
    brightness, saturation, contrast = (
        value.to(images)[:, None, None, None] for value in (draws.brightness, draws.saturation, draws.contrast)
    )
    grey = images.mean(dim=1, keepdim=True)  # [n, 1, h, w]
    mean = grey.mean(dim=(2, 3), keepdim=True)
    constant = grey * (contrast * (1.0 - saturation)) + (brightness + (1.0 - contrast) * mean)
    return torch.addcmul(constant, images, contrast * saturation)


def _move(images: Tensor, draws: Augmentation) -> Tensor:
    """Flip, then move down and right; one copy per image is three times as fast as a gather on a CPU."""
    height, width = images.shape[2:]
    moved = torch.full_like(images, FILL)
    for image, target, flipped, (down, right) in zip(
        images, moved, draws.flipped.tolist(), draws.shift.tolist(), strict=True
    ):
        source = image.flip(2) if flipped else image
        target[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = source[
            :, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
        ]
    return moved
