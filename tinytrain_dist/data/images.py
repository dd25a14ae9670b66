"""One encoded image -> pixels: safe to call on bytes from strangers."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tinytrain_dist.foundation.errors import DataError

MAX_PIXELS = 50_000_000
"""Images with more pixels than this are refused before they are decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Raster formats only: formats that run an interpreter (EPS) are never opened."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an image say: ``kind`` is rgb, grey, grey16, cmyk, alpha, palette or another mode."""

    width: int
    height: int
    kind: str


_KINDS = {
    "RGB": "rgb", "L": "grey", "1": "grey", "I": "grey16", "CMYK": "cmyk",
    "RGBA": "alpha", "LA": "alpha", "PA": "alpha", "P": "palette",
}  # fmt: skip


def read_header(data: bytes, *, where: str) -> ImageHeader:
    """Return size and kind of an encoded image without decoding it; raises ``DataError`` naming ``where``."""
    with _open(data, where=where) as image:
        return _header(image)


def decode(data: bytes, *, where: str) -> Image.Image:
    """Decode to an upright RGB image; grey, CMYK and 16-bit are converted, transparency is laid on white.

    Raises
    ------
    DataError
        Naming ``where``: no image, a truncated one, one above ``MAX_PIXELS``, or one of floating-point samples.
    """
    with _open(data, where=where) as image:
        try:
            return _to_rgb(ImageOps.exif_transpose(image))
        except Exception as exc:  # codecs raise errors of any type on damaged bytes
            raise DataError(f"{where}: the image cannot be decoded: {exc}") from exc


def resized(image: Image.Image, *, resolution: int) -> Pixels:
    """Return uint8 [3, resolution, resolution]; bilinear, antialiased when shrinking, aspect ratio not kept."""
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)


def _open(data: bytes, *, where: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as exc:
        raise DataError(f"{where}: {exc}; at most {MAX_PIXELS} pixels are allowed") from exc
    except Exception as exc:  # codecs raise errors of any type on damaged bytes
        raise DataError(f"{where}: not an image of a known format ({', '.join(FORMATS)})") from exc
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        image.close()
        raise DataError(f"{where}: the image has {size} pixels; at most {MAX_PIXELS} are allowed")
    return image


def _header(image: Image.Image) -> ImageHeader:
    kind = "grey16" if image.mode.startswith("I;16") else _KINDS.get(image.mode, image.mode)
    return ImageHeader(width=image.width, height=image.height, kind=kind)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image.copy()
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point samples have no defined range; store 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
