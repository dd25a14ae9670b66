"""A tiny domain whose classes are stripes of a colour and direction, and settings that train on it in seconds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tinytrain_dist.metatraining.settings import MetaTrainSettings

TINY = MetaTrainSettings(
    backbone="mobilenet_v2_w0.1", resolution=32, domains=(("stripes", 1.0),), way=(3, 4), shot=(1, 2), query=(2, 2),
    num_episodes=12, episodes_per_round=4, learning_rate=2e-3, validation_episodes=3, validation_way=3,
    validation_shot=2, validation_query=2, checkpoint_every=1,
)  # fmt: skip


def _stripes(class_id: int, number: int) -> bytes:
    rng = np.random.default_rng([class_id, number])
    wave = np.sin(np.arange(32) * (0.4 + 0.15 * (class_id % 4)) + rng.uniform(0, 6))
    grid = np.tile(wave, (32, 1)) if class_id % 2 else np.tile(wave[:, None], (1, 32))
    colour = np.random.default_rng(class_id).uniform(0.2, 1.0, 3)
    pixels = (grid[:, :, None] * 0.5 + 0.5) * colour + rng.normal(0, 0.1, (32, 32, 3))
    stream = io.BytesIO()
    Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder with the domain ``stripes``: 12 classes to train on, 4 to validate on, 6 images each."""
    root = tmp_path_factory.mktemp("domains")
    rows = [
        {"image": _stripes(c, n), "label": c, "class_name": f"c{c}", "split": "train" if c < 12 else "valid"}
        for c in range(16)
        for n in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), Path(root) / "stripes.parquet")
    return str(root)


@pytest.fixture(scope="session")
def tiny() -> MetaTrainSettings:
    """Settings of a training of a few seconds."""
    return TINY
