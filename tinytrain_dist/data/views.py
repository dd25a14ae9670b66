"""Views: strongly changed copies of source images, as many as wanted, each a pure function of its own random numbers.

Made for a teacher that labels anything: crop, turn, flip; inverted, grey or exchanged colours, tint, contrast; another
image mixed in (MixUp, arXiv 1710.09412), pasted (CutMix, arXiv 1905.04899) or multiplied (ink on paper); light, blur.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tinytrain_dist.data.images import Pixels
from tinytrain_dist.data.transforms import to_float

NUM_DRAWS = 28
"""Random numbers per image; a view of two images takes two rows and the first row's last few."""

CROP_AREA, ASPECT, TURN = (0.3, 1.0), (3 / 4, 4 / 3), math.pi / 6
INVERTED, GREY, EXCHANGED, TINTED, LIT, BLURRED = 0.15, 0.1, 0.3, 0.5, 0.3, 0.3
TINT, CONTRAST, BRIGHTNESS, LIGHT, BLUR_PIXELS = (0.5, 1.5), (0.5, 1.5), 0.2, 0.6, (0.4, 1.5)
MIXED, PASTED, MULTIPLIED = 0.15, 0.2, 0.15
MIX_SHARE, PASTE_SIDE = (0.3, 0.7), (0.35, 0.75)

_ORDERS = torch.tensor(list(itertools.permutations(range(3))))
_BLUR_REACH = 3
Draws = npt.NDArray[np.float64]


def make_views(images: Pixels, draws: Draws, *, partners: Pixels | None = None) -> Pixels:
    """Return one view of each image.

    Parameters
    ----------
    images, partners
        uint8 [n, 3, R, R]; a partner may be composed into the view (None: no composition, so that labels stay true).
    draws
        Uniform in [0, 1), [n, 2, NUM_DRAWS]: the image's numbers and its partner's.

    Returns
    -------
    uint8 [n, 3, R, R]
    """
    assert draws.shape == (len(images), 2, NUM_DRAWS)
    u = torch.from_numpy(draws.astype(np.float32))
    views = _coloured(_moved(to_float(torch.from_numpy(images)), u[:, 0]), u[:, 0])
    if partners is not None:
        others = _coloured(_moved(to_float(torch.from_numpy(partners)), u[:, 1]), u[:, 1])
        views = _composed(views, others, u[:, 0])
    views = _blurred(_lit(views, u[:, 0]), u[:, 0])
    pixels: Pixels = (views.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return pixels


def _between(u: Tensor, limits: tuple[float, float]) -> Tensor:
    return limits[0] + u * (limits[1] - limits[0])


def _moved(images: Tensor, u: Tensor) -> Tensor:
    """Crop, stretch, turn and flip in one resampling; what comes in from outside repeats the border."""
    side, aspect = _between(u[:, 0], CROP_AREA).sqrt(), torch.exp(_between(u[:, 1], _logs(ASPECT)))
    width, height = (side * aspect.sqrt()).clamp(max=1), (side / aspect.sqrt()).clamp(max=1)
    angle, sign = (2 * u[:, 2] - 1) * TURN, torch.where(u[:, 3] < 0.5, -1.0, 1.0)
    right, down = (2 * u[:, 4] - 1) * (1 - width), (2 * u[:, 5] - 1) * (1 - height)
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([width * cos * sign, -height * sin, right, width * sin * sign, height * cos, down], dim=1)
    grid = functional.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _logs(limits: tuple[float, float]) -> tuple[float, float]:
    return math.log(limits[0]), math.log(limits[1])


def _coloured(images: Tensor, u: Tensor) -> Tensor:
    images = torch.where(_on(u[:, 6] < INVERTED), 1.0 - images, images)
    images = torch.where(_on(u[:, 7] < GREY), images.mean(dim=1, keepdim=True), images)
    order = torch.where(u[:, 8] < EXCHANGED, (u[:, 9] * len(_ORDERS)).long(), 0)  # order 0 changes nothing
    images = images.gather(1, _ORDERS[order][:, :, None, None].expand_as(images))
    tint = torch.where((u[:, 10] < TINTED)[:, None], _between(u[:, 11:14], TINT), 1.0)
    gain = _between(u[:, 14], CONTRAST)[:, None] * tint  # [n, 3]
    mean = images.mean(dim=(1, 2, 3))
    shift = (2 * u[:, 15] - 1) * BRIGHTNESS + mean
    return ((images - mean[:, None, None, None]) * gain[:, :, None, None] + shift[:, None, None, None]).clamp(0, 1)


def _on(flags: Tensor) -> Tensor:
    return flags[:, None, None, None]


def _composed(views: Tensor, others: Tensor, u: Tensor) -> Tensor:
    mode, share = u[:, 16], _on(_between(u[:, 17], MIX_SHARE))
    pasted = torch.where(_rectangles(views, u), others, views)
    result = torch.where(_on(mode < MIXED), share * views + (1 - share) * others, views)
    result = torch.where(_on((mode >= MIXED) & (mode < MIXED + PASTED)), pasted, result)
    end = MIXED + PASTED + MULTIPLIED
    return torch.where(_on((mode >= MIXED + PASTED) & (mode < end)), views * others, result)


def _rectangles(views: Tensor, u: Tensor) -> Tensor:
    """Return bool [n, 1, R, R]: a rectangle of each image."""
    size = views.shape[-1]
    places = torch.arange(size) / size
    inside = []
    for extent, start in ((u[:, 17], u[:, 18]), (u[:, 19], u[:, 20])):
        length = _between(extent, PASTE_SIDE)
        first = (start * (1 - length))[:, None]
        inside.append((places >= first) & (places < first + length[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _lit(views: Tensor, u: Tensor) -> Tensor:
    """Multiply by a ramp of light across the image."""
    strength = torch.where(u[:, 21] < LIT, u[:, 22] * LIGHT, 0.0)
    direction = u[:, 23] * 2 * math.pi
    places = torch.linspace(-1, 1, views.shape[-1])
    ramp = direction.cos()[:, None, None] * places[None, :, None] + direction.sin()[:, None, None] * places[None, None]
    return views * (1 + strength[:, None, None] * ramp)[:, None]


def _blurred(views: Tensor, u: Tensor) -> Tensor:
    """Blur by a Gaussian of each image's own width."""
    sigma = torch.where(u[:, 24] < BLURRED, _between(u[:, 25], BLUR_PIXELS), 1e-3)
    reach = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1)
    kernel = torch.exp(-0.5 * (reach[None] / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, dim=0)  # [3 n, taps]
    flat = views.reshape(1, -1, *views.shape[2:])
    groups = flat.shape[1]
    padded = functional.pad(flat, [_BLUR_REACH] * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[:, None, :, None], groups=groups)
    return functional.conv2d(rows, kernel[:, None, None, :], groups=groups).view_as(views)
