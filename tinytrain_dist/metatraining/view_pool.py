"""The pool of views a pre-training runs on: made once, kept in checksummed shards, shared by equal trainings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from tinytrain_dist.backbones.card import read_header
from tinytrain_dist.data.images import Pixels
from tinytrain_dist.execution.worker_group import WorkerGroup
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.foundation.hashing import bytes_hash, content_hash
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.foundation.progress import progress
from tinytrain_dist.metatraining.view_worker import Views, ViewSlot

_log = logger(__name__)
VIEW_VERSION = 1
"""Raised whenever the same settings lead to other views than before."""
VIEWS_PER_SHARD = 128
SHARDS_PER_WAVE = 8
_NOTE_KEY = "tinytrain_views"
Rows = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False, kw_only=True)
class ViewPool:
    """All views: uint8 ``[n, 3, R, R]``, the teacher's raw features float16 ``[n, D]``, and each one's image."""

    images: Pixels
    features: npt.NDArray[np.float16]
    numbers: npt.NDArray[np.int64]

    def unit_features(self) -> npt.NDArray[np.float16]:
        """Return the features centred on the pool's mean, each of length 1."""
        mean = self.features.mean(axis=0, dtype=np.float64).astype(np.float32)
        result = np.empty_like(self.features)
        for start in range(0, len(result), 4096):
            part = self.features[start : start + 4096].astype(np.float32) - mean
            result[start : start + 4096] = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-6)
        return result


class PoolFolder:
    """``<root>/views-<hash>/shard-00000.safetensors ...``

    Parameters
    ----------
    identity
        Everything that decides the views, JSON-ready.
    rows
        (image number, view number) of each view, in order.
    """

    def __init__(self, root: Path, *, identity: Mapping[str, Any], rows: Rows, seed: int) -> None:
        identity = {**identity, "num_views": len(rows), "seed": seed, "view_version": VIEW_VERSION}
        self._identity = content_hash(identity)
        self.path = root / f"views-{self._identity[:12]}"
        self._rows, self._seed = rows, seed
        self._shards = [tuple(rows[i : i + VIEWS_PER_SHARD]) for i in range(0, len(rows), VIEWS_PER_SHARD)]

    def fill(self, group: WorkerGroup) -> None:
        """Make the shards that are missing or damaged; what is there stays."""
        missing = [index for index in range(len(self._shards)) if self._read(index) is None]
        done = len(self._shards) - len(missing)
        with progress("shards of labelled views", total=len(self._shards), done=done) as meter:
            wave = SHARDS_PER_WAVE * group.num_workers
            for start in range(0, len(missing), wave):
                part = missing[start : start + wave]
                slots = [ViewSlot(rows=self._shards[index], seed=self._seed) for index in part]
                for index, views in zip(part, group.run_round("make", [], slots), strict=True):
                    self._write(index, views)
                meter.advance(len(part))

    @property
    def complete(self) -> bool:
        """Whether every shard's file is there (its content is checked when it is read)."""
        return all(self._file(index).exists() for index in range(len(self._shards)))

    def load(self) -> ViewPool | None:
        """Return all views, None if a shard is missing or damaged."""
        first = self._read(0)
        if first is None:
            return None
        images = np.empty((len(self._rows), *first.images.shape[1:]), dtype=np.uint8)
        features = np.empty((len(self._rows), first.features.shape[1]), dtype=np.float16)
        for index in range(len(self._shards)):
            views = self._read(index)
            if views is None:
                return None
            start = index * VIEWS_PER_SHARD
            images[start : start + len(views.images)] = views.images
            features[start : start + len(views.images)] = views.features
        numbers = np.array([number for number, _ in self._rows], dtype=np.int64)
        return ViewPool(images=images, features=features, numbers=numbers)

    def _file(self, index: int) -> Path:
        return self.path / f"shard-{index:05d}.safetensors"

    def _write(self, index: int, views: Views) -> None:
        tensors: dict[str, npt.NDArray[Any]] = {"images": views.images, "features": views.features}
        note = {"identity": self._identity, "shard": index, "digest": _digest(views)}
        atomic_write(self._file(index), safetensors.numpy.save(tensors, metadata={_NOTE_KEY: json.dumps(note)}))

    def _read(self, index: int) -> Views | None:
        path = self._file(index)
        if not path.exists():
            return None
        try:
            note = json.loads(read_header(path)["__metadata__"][_NOTE_KEY])
            views = Views(**safetensors.numpy.load(path.read_bytes()))
            good = note == {"identity": self._identity, "shard": index, "digest": _digest(views)}
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError, CheckpointError):
            good = False
        if not good:
            _log.warning("%s: damaged; its views are made again", path)
            return None
        return views


def _digest(views: Views) -> str:
    return bytes_hash(np.ascontiguousarray(views.images).tobytes() + np.ascontiguousarray(views.features).tobytes())
