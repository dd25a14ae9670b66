"""Small stand-ins of what the paper's protocol starts from, in the exact layout of the real downloads."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from tfrecord.writer import TFRecordWriter

META_DATASET = (
    "traffic_sign", "omniglot", "aircraft", "vgg_flower", "cu_birds", "dtd", "quickdraw", "fungi", "mscoco",
)  # fmt: skip
NUM_CLASSES, NUM_IMAGES = 6, 6


def write_paper_data(folder: Path) -> None:
    """Write ``records/<name>/`` of every dataset and ``mini-imagenet/``, six images in each of six classes."""
    draw = np.random.default_rng(0)
    for name in META_DATASET:
        _write_records(folder / "records" / name, name, draw)
    _write_caches(folder / "mini-imagenet", draw)


def _write_records(folder: Path, name: str, draw: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for label in range(NUM_CLASSES):
        writer = TFRecordWriter(str(folder / f"{label}.tfrecords"))
        for _ in range(NUM_IMAGES):
            stream = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, size=(24, 24, 3), dtype=np.uint8)).save(stream, "JPEG")
            writer.write({"image": (stream.getvalue(), "byte"), "label": (label, "int")})
        writer.close()
    spec = {
        "__class__": "DatasetSpecification", "name": name, "path": "", "file_pattern": "{}.tfrecords",
        "classes_per_split": {"TRAIN": 0, "VALID": 0, "TEST": NUM_CLASSES},
        "class_names": {str(c): f"{name} {c}" for c in range(NUM_CLASSES)},
        "images_per_class": {str(c): NUM_IMAGES for c in range(NUM_CLASSES)},
    }  # fmt: skip
    (folder / "dataset_spec.json").write_text(json.dumps(spec))


def _write_caches(folder: Path, draw: np.random.Generator) -> None:
    folder.mkdir()
    for split in ("train", "val", "test"):
        pixels = draw.integers(0, 256, size=(NUM_CLASSES * NUM_IMAGES, 84, 84, 3), dtype=np.uint8)
        places = {
            f"{split}{c}": list(range(c * NUM_IMAGES, c * NUM_IMAGES + NUM_IMAGES)) for c in range(NUM_CLASSES)
        }  # fmt: skip
        file = folder / f"mini-imagenet-cache-{split}.pkl"
        file.write_bytes(pickle.dumps({"image_data": pixels, "class_dict": places}, protocol=2))
