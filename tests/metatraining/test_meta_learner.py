"""The gradient of a slot, batch normalisation's statistics, and the learner's step against plain torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tinytrain_dist.backbones.flat_state import flat_to_state, split_flat, state_to_flat
from tinytrain_dist.backbones.head import class_means, cosine_logits
from tinytrain_dist.backbones.network import Backbone, build_backbone
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import load_episode
from tinytrain_dist.data.transforms import to_unit
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.metatraining.episode_worker import EpisodeWorker
from tinytrain_dist.metatraining.initialization import initial_weights
from tinytrain_dist.metatraining.learner import Learner
from tinytrain_dist.metatraining.replica import SlotResult
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import Slot, round_slots


def first_slot(settings: MetaTrainSettings, data_root: str) -> Slot:
    return round_slots(settings, {"stripes": open_domain("stripes", roots=[data_root])}, 0)[0]


def make_learner(settings: MetaTrainSettings) -> Learner:
    start = initial_weights(settings)
    head = np.array([start.scale], dtype=np.float32)
    graph = build_backbone(settings.backbone).graph
    return Learner(settings, graph, start.weights, head=head, num_rounds=settings.num_rounds)


def by_torch(settings: MetaTrainSettings, slot: Slot, data_root: str) -> tuple[Backbone, torch.Tensor]:
    """One step of ordinary torch training on the slot: backbone and head scale afterwards."""
    backbone = build_backbone(settings.backbone, resolution=settings.resolution)
    flat_to_state(backbone, initial_weights(settings).weights)
    backbone.train()
    scale = torch.nn.Parameter(torch.tensor(settings.scale))
    optimizer = torch.optim.SGD([*backbone.parameters(), scale], lr=settings.learning_rate, momentum=settings.momentum)
    episode = load_episode(open_domain("stripes", roots=[data_root]), slot.spec, resolution=settings.resolution)
    images = torch.from_numpy(np.concatenate([episode.support_images, episode.query_images]))
    features = backbone(to_unit(images))
    num_support = len(episode.support_labels)
    means = class_means(features[:num_support], torch.from_numpy(episode.support_labels), episode.way)
    logits = cosine_logits(features[num_support:], means, scale)
    functional.cross_entropy(logits, torch.from_numpy(episode.query_labels)).backward()
    optimizer.step()
    return backbone, scale.detach()


def test_one_slot_is_one_step_of_torch_with_its_running_statistics(tiny: MetaTrainSettings, data_root: str) -> None:
    settings = replace(tiny, optimizer="sgd", augment=False, episodes_per_round=1, warmup_share=0.0, learning_rate=0.1)
    slot = first_slot(settings, data_root)
    learner = make_learner(settings)
    worker = EpisodeWorker(settings.backbone, settings.resolution, (data_root,))
    learner.step([worker.learn(learner.weights, learner.head, slot)])

    backbone, scale = by_torch(settings, slot, data_root)
    ours, theirs = (split_flat(learner.graph, flat) for flat in (learner.weights, state_to_flat(backbone)))
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-3, atol=2e-5, err_msg=name)
    assert learner.scale == pytest.approx(float(scale), rel=1e-5)
    assert any(np.any(ours[name] != 0) for name in ours if name.endswith("running_mean"))


def test_a_slot_does_not_depend_on_what_its_worker_did_before(tiny: MetaTrainSettings, data_root: str) -> None:
    slot, start = first_slot(tiny, data_root), initial_weights(tiny)
    fresh, used = (EpisodeWorker(tiny.backbone, tiny.resolution, (data_root,)) for _ in range(2))
    head = np.array([start.scale], dtype=np.float32)
    used.learn(start.weights * 0.9, head / 3, slot)
    used.evaluate(start.weights, slot)
    a, b = (worker.learn(start.weights, head, slot) for worker in (fresh, used))
    np.testing.assert_array_equal(a.update, b.update)
    assert (a.loss, a.accuracy, a.head_gradient) == (b.loss, b.accuracy, b.head_gradient)


def fake_results(learner: Learner, count: int, seed: int = 0) -> list[SlotResult]:
    rng = np.random.default_rng(seed)
    return [
        SlotResult(
            update=rng.uniform(0, 1e-2, learner.weights.shape).astype(np.float32),
            head_gradient=rng.normal(size=1).astype(np.float32), loss=1.0, accuracy=0.5,
        )
        for _ in range(count)
    ]  # fmt: skip


def test_the_gradient_is_clipped_to_its_global_norm_and_decay_is_of_convolutions(tiny: MetaTrainSettings) -> None:
    plain = replace(
        tiny, optimizer="sgd", momentum=0.0, warmup_share=0.0, learning_rate=0.5, final_learning_rate=0.5
    )  # fmt: skip
    steps = {}
    for name, settings in {
        "free": plain, "clipped": replace(plain, gradient_clip=0.01), "decayed": replace(plain, weight_decay=0.1)
    }.items():  # fmt: skip
        learner = make_learner(settings)
        before = split_flat(learner.graph, learner.weights)
        learner.step(fake_results(learner, 2))
        after = split_flat(learner.graph, learner.weights)
        trained = [key for key in before if not key.endswith(("running_mean", "running_var"))]
        steps[name] = {key: (after[key] - before[key]).astype(np.float64) for key in trained}
    norm = np.sqrt(sum(float((step**2).sum()) for step in steps["free"].values())) / 0.5
    assert norm > 0.01
    for key, step in steps["free"].items():
        np.testing.assert_allclose(steps["clipped"][key], step * (0.01 / norm), rtol=2e-2, atol=1e-6)
        shrunk = 0.5 * 0.1 * before[key] if key.endswith("conv.weight") else np.zeros_like(before[key])
        np.testing.assert_allclose(steps["decayed"][key], step - shrunk, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("learns", [True, False])
def test_the_scale_is_learned_or_left(tiny: MetaTrainSettings, learns: bool) -> None:
    learner = make_learner(replace(tiny, learn_scale=learns, warmup_share=0.0))
    before = learner.scale
    learner.step(fake_results(learner, 2))
    assert (learner.scale != before) is learns


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_restored_learner_goes_on_bit_for_bit(tiny: MetaTrainSettings, optimizer: str) -> None:
    settings = replace(tiny, optimizer=optimizer, weight_decay=1e-3, gradient_clip=1.0)  # type: ignore[arg-type]
    first, second = make_learner(settings), make_learner(settings)
    first.step(fake_results(first, 3, seed=1))
    second.restore(weights=first.weights, state=first.state(), round_index=first.round)
    for learner in (first, second):
        learner.step(fake_results(learner, 3, seed=2))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert (first.scale, first.round) == (second.scale, second.round)


def test_running_statistics_move_by_the_momentum_once_per_round(tiny: MetaTrainSettings) -> None:
    learner = make_learner(replace(tiny, norm_momentum=0.25))
    before, results = split_flat(learner.graph, learner.weights), fake_results(learner, 2)
    learner.step(results)
    after = split_flat(learner.graph, learner.weights)
    batches = [split_flat(learner.graph, result.update)["units.3.norm.running_var"] for result in results]
    expected = 0.75 * before["units.3.norm.running_var"] + 0.25 * np.mean(batches, axis=0)
    np.testing.assert_allclose(after["units.3.norm.running_var"], expected, rtol=1e-5)


def test_a_gradient_that_is_not_finite_says_what_to_set(tiny: MetaTrainSettings) -> None:
    learner = make_learner(tiny)
    results = fake_results(learner, 2)
    results[1].update[5] = np.nan
    with pytest.raises(ConfigError, match="learning_rate"):
        learner.step(results)
