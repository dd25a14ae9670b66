"""The plain loop of the benchmark computes what ours computes: same features, same loss of an episode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # the plain arm lives in benchmarks/, which is not installed

from benchmarks.metatraining import NETWORKS
from benchmarks.plain_metatraining import ImageSet, TaskSampler, plain_training
from tinytrain_dist.data.domain import open_domain


def test_features_and_statistics_are_equal_in_training_mode() -> None:
    for network in NETWORKS.values():
        ours = network.drawn()
        plain = network.plain(ours).train()
        images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
        found = ours.train()(images.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(found, plain(images), rtol=1e-3, atol=2e-3)  # 42 normalisations of few values
        mine, theirs = ours.unit(0).norm.running_var, plain.units[0][1].running_var  # type: ignore[index]
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_plain_loop_learns() -> None:
    domain = open_domain("signs")
    chosen = [i for i in range(len(domain)) if domain.labels[i] < 6]
    encoded, labels = [domain._table.encoded(i) for i in chosen], [int(domain.labels[i]) for i in chosen]
    images = ImageSet(encoded, labels, resolution=24, in_memory=True)
    torch.manual_seed(0)
    conv4 = NETWORKS["conv4"]
    losses = plain_training(conv4.plain(conv4.drawn()), images, num_episodes=12, seed=0)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    (episode,) = TaskSampler(labels, num_episodes=1, seed=0)
    assert len(set(episode)) == 100
