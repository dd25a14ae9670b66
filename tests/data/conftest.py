"""Small images and tables made on the spot."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Encode = Callable[..., bytes]


@pytest.fixture
def encode() -> Encode:
    """Return a function that encodes a random image of a mode, size and format."""

    def _encode(seed: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (12, 10), form: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(stream, form)
        return stream.getvalue()

    return _encode


@pytest.fixture
def photos(tmp_path: Path, encode: Encode) -> Path:
    """Return an image folder of three classes with four images each."""
    for c, name in enumerate(("ant", "bee", "cat")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(4):
            (folder / f"{i}.png").write_bytes(encode(10 * c + i))
    return tmp_path / "photos"
