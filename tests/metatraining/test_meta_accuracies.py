"""Training accuracy of each episode and domain, against plain torch; with one and several episodes per forward."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.head import class_means, cosine_logits
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.data.domain import Domain, open_domain
from tinytrain_dist.data.episodes import load_episode
from tinytrain_dist.data.transforms import to_unit
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.metatraining.curves import figures_of, read_curves
from tinytrain_dist.metatraining.initialization import initial_weights
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import Slot, domains_of, grouped, round_slots
from tinytrain_dist.metatraining.stage import TrainingResult
from tinytrain_dist.metatraining.training import meta_train


@pytest.fixture(scope="module")
def two_domains(data_root: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder with two domains."""
    root = tmp_path_factory.mktemp("two")
    for name in ("stripes", "bands"):
        shutil.copyfile(Path(data_root) / "stripes.parquet", root / f"{name}.parquet")
    return str(root)


@pytest.fixture(scope="module")
def settings(tiny: MetaTrainSettings) -> MetaTrainSettings:
    """Three episodes of one domain and one of the other in a round."""
    return replace(
        tiny, domains=(("stripes", 3.0), ("bands", 1.0)), augment=False, num_episodes=4, way=(4, 4), query=(4, 4)
    )


@pytest.fixture(scope="module")
def trained(
    settings: MetaTrainSettings, two_domains: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, TrainingResult]:
    """Return the training by number of episodes per forward."""
    serial = ExecutorSettings(kind="serial")
    return {
        size: meta_train(
            replace(settings, episodes_per_forward=size), root=tmp_path_factory.mktemp(f"forward{size}"),
            executor=serial, roots=[two_domains],
        )
        for size in (1, 2)
    }  # fmt: skip


def by_hand(settings: MetaTrainSettings, slot: Slot, domain: Domain) -> float:
    """Query accuracy of one episode under the initial weights, normalised by its own images."""
    backbone = build_backbone(settings.backbone, resolution=settings.resolution)
    flat_to_state(backbone, initial_weights(settings).weights)
    backbone.train()
    episode = load_episode(domain, slot.spec, resolution=settings.resolution)
    images = torch.from_numpy(np.concatenate([episode.support_images, episode.query_images]))
    features = backbone(to_unit(images))
    num_support = len(episode.support_labels)
    means = class_means(features[:num_support], torch.from_numpy(episode.support_labels), episode.way)
    guesses = cosine_logits(features[num_support:], means, torch.tensor(settings.scale)).argmax(dim=1)
    return float((guesses == torch.from_numpy(episode.query_labels)).float().mean())


@pytest.mark.parametrize("size", [1, 2])
def test_a_round_knows_the_accuracy_of_each_episode_by_domain(
    settings: MetaTrainSettings, two_domains: str, trained: dict[int, TrainingResult], size: int
) -> None:
    domains = {name: open_domain(name, roots=[two_domains]) for name in ("stripes", "bands")}
    expected: dict[str, list[float]] = {}
    for slot in round_slots(settings, domains, 0):
        expected.setdefault(slot.spec.domain, []).append(by_hand(settings, slot, domains[slot.spec.domain]))
    assert {name: len(own) for name, own in expected.items()} == {"stripes": 3, "bands": 1}
    assert len({value for own in expected.values() for value in own}) > 1, "all episodes are alike"
    (row,) = read_curves(trained[size].run_folder / "curves.parquet")
    found = row["episode_accuracies"]
    one_image = 1 / 16  # of an episode's query images; rounding may move one of them
    assert found is not None and set(found) == set(expected)
    for name, own in expected.items():
        assert found[name] == pytest.approx(own, abs=0.0 if size == 1 else one_image)
        assert figures_of(row)[f"accuracy/{name}"] == pytest.approx(np.mean(found[name]))
    assert row["accuracy"] == pytest.approx(np.mean([value for own in found.values() for value in own]))


def test_the_domains_of_a_slot_are_those_of_its_episodes(settings: MetaTrainSettings, two_domains: str) -> None:
    domains = {name: open_domain(name, roots=[two_domains]) for name in ("stripes", "bands")}
    slots = round_slots(settings, domains, 0)
    assert [domains_of(slot) for slot in slots] == [(slot.spec.domain,) for slot in slots]
    [whole] = grouped(slots, 4)
    assert domains_of(whole) == tuple(slot.spec.domain for slot in slots)
    assert domains_of(object()) == ()
