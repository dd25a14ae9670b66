"""Pictures of the first episodes of a meta-training, as the network sees them: one PNG each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.images import Pixels
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.metatraining.episode_tensors import EpisodeTensors, load_slot
from tinytrain_dist.metatraining.run_folder import PICTURES
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import round_slots

NUM_PICTURES = 4
MAX_COLUMNS = 20
GAP = 6
"""Pixels between support and query."""


def save_episode_pictures(
    settings: MetaTrainSettings, run_folder: Path, *, roots: tuple[str, ...] = ()
) -> tuple[Path, ...]:
    """Write ``episodes/<number>-<domain>.png`` of the first round's first slots and return the paths."""
    domains = {name: open_domain(name, roots=roots) for name, _ in settings.domains}
    paths = []
    for number, slot in enumerate(round_slots(settings, domains, 0)[:NUM_PICTURES]):
        episode = load_slot(slot, resolution=settings.resolution, roots=roots)
        stream = io.BytesIO()
        Image.fromarray(episode_sheet(episode)).save(stream, "PNG")
        paths.append(run_folder / PICTURES / f"{number}-{slot.spec.domain}.png")
        atomic_write(paths[-1], stream.getvalue())
    return tuple(paths)


def episode_sheet(episode: EpisodeTensors) -> Pixels:
    """Return uint8 ``[H, W, 3]``: a row per class, support images, a gap, query images."""
    pixels = ((episode.images.contiguous() + 1.0) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    num_support = len(episode.support_labels)
    halves = ((pixels[:num_support], episode.support_labels), (pixels[num_support:], episode.labels))
    parts = [_rows(images, labels.tolist(), episode.way) for images, labels in halves]
    gap = np.full((parts[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([parts[0], gap, parts[1]], axis=1)


def _rows(images: Pixels, labels: Sequence[int], way: int) -> Pixels:
    """Return a row of images per class; rows that are shorter end in white."""
    size = images.shape[1]
    members = [[i for i, label in enumerate(labels) if label == c][:MAX_COLUMNS] for c in range(way)]
    sheet = np.full((way * size, max(map(len, members)) * size, 3), 255, dtype=np.uint8)
    for row, own in enumerate(members):
        for column, index in enumerate(own):
            sheet[row * size : (row + 1) * size, column * size : (column + 1) * size] = images[index]
    return sheet
