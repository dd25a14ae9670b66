"""Decoding: what converts, and what is refused before it can do harm."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tinytrain_dist.data.images import decode, read_header, resized
from tinytrain_dist.foundation.errors import DataError

Encode = Callable[..., bytes]


def saved(image: Image.Image, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def png_header_only(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("mode", "form", "kind"),
    [
        ("L", "PNG", "grey"),
        ("1", "PNG", "grey"),
        ("CMYK", "JPEG", "cmyk"),
        ("RGBA", "PNG", "alpha"),
        ("P", "PNG", "palette"),
    ],
)
def test_other_modes_become_rgb(encode: Encode, mode: str, form: str, kind: str) -> None:
    data = encode(1, mode=mode, form=form)
    assert read_header(data, where="row 0").kind == kind
    assert decode(data, where="row 0").mode == "RGB"


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    data = saved(Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16)))
    assert read_header(data, where="r").kind == "grey16"
    assert np.asarray(decode(data, where="r"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_lies_on_white_and_exif_turns() -> None:
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert np.asarray(decode(saved(clear), where="r")).min() == 255
    turned, exif = Image.new("RGB", (4, 2)), Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    turned.save(stream, "JPEG", exif=exif)
    assert decode(stream.getvalue(), where="r").size == (2, 4)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_truncated_images_name_their_row(encode: Encode, form: str) -> None:
    data = encode(1, size=(40, 40), form=form)
    with pytest.raises(DataError, match="row 17"):
        decode(data[: len(data) // 2], where="row 17")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\x89PNG\r\n\x1a\n"]
)
def test_no_image_at_all(data: bytes) -> None:
    with pytest.raises(DataError, match="row 3: not an image of a known format"):
        decode(data, where="row 3")


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(DataError, match=r"row 5: .*at most 50000000"):
        read_header(png_header_only(side, side), where="row 5")


def test_floating_point_samples_are_refused() -> None:
    data = saved(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF")
    with pytest.raises(DataError, match="floating-point"):
        decode(data, where="r")


def test_resizing_is_antialiased() -> None:
    board = Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], dtype=np.uint8), (32, 32))).convert("RGB")
    small = resized(board, resolution=8)
    assert small.shape == (3, 8, 8) and np.abs(small.astype(int) - 127).max() < 25
