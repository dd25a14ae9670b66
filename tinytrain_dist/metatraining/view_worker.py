"""``ViewWorker``: makes views of source images and lets the teacher describe them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from tinytrain_dist.backbones.flat_state import FlatState, flat_to_state
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.images import Pixels
from tinytrain_dist.data.samplers.class_pool import integer
from tinytrain_dist.data.transforms import to_unit
from tinytrain_dist.data.views import NUM_DRAWS, make_views
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.metatraining.source_images import SourceImages

TEACHER_BATCH = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class Teacher:
    """A frozen network: registered architecture, flat weights, and the pixels it sees."""

    backbone: str
    weights: FlatState
    resolution: int


@dataclass(frozen=True, kw_only=True)
class ViewSlot:
    """Views to make: (number of the image in ``SourceImages``, number of the view) of each."""

    rows: tuple[tuple[int, int], ...]
    seed: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Views:
    """Views uint8 ``[n, 3, R, R]``, and the teacher's features float16 ``[n, D]`` (D 0 without a teacher)."""

    images: Pixels
    features: npt.NDArray[np.float16]


class ViewWorker:
    """Worker that fills a pool of views; with a teacher they are compositions of two images."""

    def __init__(self, domains: tuple[str, ...], resolution: int, roots: tuple[str, ...], teacher: Teacher | None):
        self._source = SourceImages([open_domain(name, roots=roots) for name in domains])
        self._resolution, self._teacher = resolution, teacher
        self._network: FoldedNetwork | None = None
        if teacher is not None:
            backbone = build_backbone(teacher.backbone, resolution=teacher.resolution)
            flat_to_state(backbone, teacher.weights)
            self._network = FoldedNetwork(backbone)

    def make(self, slot: ViewSlot) -> Views:
        """Return the views of a slot; each depends on its image, its number and the seed alone."""
        draws, partners = self._draws(slot)
        numbers = np.array([number for number, _ in slot.rows], dtype=np.int64)
        images = self._source.pixels(numbers, resolution=self._resolution)
        others = self._source.pixels(partners, resolution=self._resolution) if self._teacher is not None else None
        views = make_views(images, draws, partners=others)
        return Views(images=views, features=self._features(views))

    def _draws(self, slot: ViewSlot) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        draws, partners = [], []
        for number, view in slot.rows:
            rng = generator_of("view", slot.seed, number, view)
            draws.append(rng.random((2, NUM_DRAWS)))
            partners.append(integer(rng, 0, len(self._source) - 1))
        return np.stack(draws), np.array(partners, dtype=np.int64)

    @torch.inference_mode()
    def _features(self, views: Pixels) -> npt.NDArray[np.float16]:
        if self._network is None or self._teacher is None:
            return np.empty((len(views), 0), dtype=np.float16)
        size = (self._teacher.resolution,) * 2
        parts = []
        for start in range(0, len(views), TEACHER_BATCH):
            images = to_unit(torch.from_numpy(views[start : start + TEACHER_BATCH]))
            large = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
            parts.append(self._network.features(large.contiguous(memory_format=torch.channels_last)))
        return torch.cat(parts).numpy().astype(np.float16)
