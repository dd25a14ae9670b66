"""What frozen features are worth: accuracy of the nearest prototype over many episodes, without adaptation.

Each image passes a network once, however many episodes it stands in. Method ``none`` on the same episodes gives the
same accuracies (a test holds the two together); this is for hundreds of episodes of several networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from tinytrain_dist.adaptation.methods.raw_pixels import pixel_features
from tinytrain_dist.backbones.card import Accuracy
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.head import accuracy, class_means, cosine_logits
from tinytrain_dist.data.domain import Domain, SplitName
from tinytrain_dist.data.episodes import EpisodeIndices, EpisodeSettings, EpisodeSpec, check_episodes, draw_episode
from tinytrain_dist.data.images import Pixels
from tinytrain_dist.data.transforms import to_unit

BATCH = 32
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False, kw_only=True)
class Features:
    """One way to describe images: ``of`` maps uint8 ``[n, 3, R, R]`` at ``resolution`` pixels to ``[n, F]``."""

    resolution: int
    of: Callable[[Pixels], Tensor]


def raw_pixels(resolution: int) -> Features:
    """Return the features of method ``raw_pixels``."""
    return Features(resolution=resolution, of=pixel_features)


def network_features(network: FoldedNetwork, *, resolution: int) -> Features:
    """Return the features of frozen weights."""

    def of(pixels: Pixels) -> Tensor:
        images = to_unit(torch.from_numpy(pixels)).contiguous(memory_format=torch.channels_last)
        return network.features(images)

    return Features(resolution=resolution, of=of)


def draw_episodes(
    domain: Domain, *, split: SplitName, settings: EpisodeSettings, num_episodes: int, seed: int
) -> list[EpisodeIndices]:
    """Return the first episodes of a domain; raises ``DataError`` if it cannot satisfy the settings."""
    check_episodes(domain, split=split, settings=settings)
    specs = (
        EpisodeSpec.of(domain, split=split, settings=settings, seed=seed, index=index) for index in range(num_episodes)
    )
    return [draw_episode(domain, spec) for spec in specs]


@torch.inference_mode()
def frozen_accuracy(domain: Domain, episodes: Sequence[EpisodeIndices], features: Features) -> Accuracy:
    """Return mean and interval of the query accuracy over at least two episodes."""
    used = np.unique(np.concatenate([part for drawn in episodes for part in (*drawn.support, *drawn.query)]))
    table = torch.cat(
        [
            features.of(domain.images(used[start : start + BATCH], resolution=features.resolution))
            for start in range(0, len(used), BATCH)
        ]
    )
    return mean_accuracy([_accuracy(table, used, drawn) for drawn in episodes])


def mean_accuracy(values: Sequence[float]) -> Accuracy:
    """Return mean and 95 % t-interval of at least two accuracies."""
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * stats.sem(values))
    return Accuracy(mean=float(np.mean(values)), half_width=half, num_episodes=len(values))


def _accuracy(table: Tensor, used: npt.NDArray[np.int64], drawn: EpisodeIndices) -> float:
    support, query = (
        table[torch.from_numpy(np.searchsorted(used, np.concatenate(parts)))] for parts in (drawn.support, drawn.query)
    )
    prototypes = class_means(support, _labels(drawn.support), len(drawn.class_ids))
    return accuracy(cosine_logits(query, prototypes), _labels(drawn.query))


def _labels(images_per_class: Sequence[npt.NDArray[np.int64]]) -> Tensor:
    sizes = torch.tensor([len(images) for images in images_per_class])
    return torch.repeat_interleave(torch.arange(len(sizes)), sizes)
