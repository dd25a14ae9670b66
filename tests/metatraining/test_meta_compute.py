"""Several episodes per forward, mixed precision, and the GPU where there is one, against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tinytrain_dist.backbones.flat_state import FlatState, split_flat
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.metatraining.compute import Compute
from tinytrain_dist.metatraining.curves import read_curves
from tinytrain_dist.metatraining.episode_worker import EpisodeWorker
from tinytrain_dist.metatraining.initialization import initial_weights
from tinytrain_dist.metatraining.replica import SlotResult
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import Slot, grouped, round_slots
from tinytrain_dist.metatraining.training import meta_train

HEAD = np.array([10.0], dtype=np.float32)


@pytest.fixture
def slots(tiny: MetaTrainSettings, data_root: str) -> list[Slot]:
    """Four episodes of different way and shot."""
    return list(round_slots(tiny, {"stripes": open_domain("stripes", roots=[data_root])}, 0))


def open_worker(tiny: MetaTrainSettings, data_root: str, compute: Compute | None = None) -> EpisodeWorker:
    return EpisodeWorker(tiny.backbone, tiny.resolution, (data_root,), compute or Compute())


def start(tiny: MetaTrainSettings) -> FlatState:
    """Return weights with open residual branches, so that every layer matters, yet none amplifies rounding."""
    weights = initial_weights(tiny).weights
    graph = build_backbone(tiny.backbone).graph
    named = split_flat(graph, weights)  # views
    for layer in graph.layers:
        if layer.residual_after:
            named[f"units.{layer.index}.norm.weight"][:] = 0.3
    return weights


def assert_close(found: SlotResult, wanted: list[SlotResult], tiny: MetaTrainSettings, *, share: float) -> None:
    """Compare with the mean of the wanted, tensor by tensor; one normalisation for all is off by half and more."""
    mean = np.mean([result.update for result in wanted], axis=0)
    graph = build_backbone(tiny.backbone).graph
    ours, theirs = (split_flat(graph, flat) for flat in (found.update, mean))
    for name in ours:
        assert np.linalg.norm(ours[name] - theirs[name]) <= share * (np.linalg.norm(theirs[name]) + 1e-2), name
    assert found.loss == pytest.approx(np.mean([result.loss for result in wanted]), rel=share)


def test_episodes_in_one_forward_give_the_mean_of_each_alone(
    tiny: MetaTrainSettings, data_root: str, slots: list[Slot]
) -> None:
    assert len({(slot.spec.settings.way, slot.spec.settings.shot) for slot in slots}) > 1, "all episodes are alike"
    worker, weights = open_worker(tiny, data_root), start(tiny)
    alone = [worker.learn(weights, HEAD, slot) for slot in slots]
    [group] = grouped(slots, len(slots))
    together = worker.learn(weights, HEAD, group)
    assert together.num_slots == len(slots)
    assert_close(together, alone, tiny, share=2e-2)
    assert together.accuracy == pytest.approx(np.mean([result.accuracy for result in alone]), abs=0.05)
    np.testing.assert_allclose(
        together.head_gradient, np.mean([r.head_gradient for r in alone], axis=0), rtol=1e-2, atol=1e-4
    )
    after = worker.learn(weights, HEAD, slots[0])  # alone again, whatever the worker did before
    assert_close(after, alone[:1], tiny, share=2e-2)


def test_mixed_precision_is_near_and_not_equal(tiny: MetaTrainSettings, data_root: str, slots: list[Slot]) -> None:
    weights = initial_weights(tiny).weights
    exact = open_worker(tiny, data_root).learn(weights, HEAD, slots[0])
    mixed = open_worker(tiny, data_root, Compute(precision="bf16")).learn(weights, HEAD, slots[0])
    assert mixed.update.dtype == np.float32 and (mixed.update != exact.update).any()
    assert mixed.loss == pytest.approx(exact.loss, rel=0.1)
    cosine = exact.update @ mixed.update / np.linalg.norm(exact.update) / np.linalg.norm(mixed.update)
    assert cosine > 0.9


class Rates:
    """Collects how many slots a second each round says it had, and how long it took."""

    def __init__(self) -> None:
        self.slots: list[float] = []

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        if (rate := values.get("meta_train/slots_per_second")) is not None:
            self.slots.append(rate * (values["meta_train/seconds_on_workers"] + values["meta_train/seconds_of_step"]))

    def note(self, message: str) -> None:
        raise AssertionError(message)


def test_a_training_of_both_counts_episodes(tiny: MetaTrainSettings, data_root: str, tmp_path: Path) -> None:
    settings, rates = replace(tiny, episodes_per_forward=2, precision="bf16"), Rates()
    serial = ExecutorSettings(kind="serial")
    result = meta_train(settings, root=tmp_path, executor=serial, roots=[data_root], run_logger=rates)
    assert rates.slots == pytest.approx([4.0, 4.0, 4.0])
    assert all(np.isfinite(row["loss"]) for row in read_curves(result.run_folder / "curves.parquet"))


def test_they_belong_to_a_runs_identity_only_where_they_are_used(tiny: MetaTrainSettings) -> None:
    assert not {"device", "precision", "episodes_per_forward"} & set(tiny.deciding())
    used = replace(tiny, device="cuda", precision="bf16", episodes_per_forward=4).deciding()
    assert (used["device"], used["precision"], used["episodes_per_forward"]) == ("cuda", "bf16", 4)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("device", "gpu", "unknown 'gpu'"),
        ("precision", "fp16", "did you mean 'bf16'"),
        ("episodes_per_forward", 3, r"divides meta_train\.episodes_per_round \(4\)"),
        ("episodes_per_forward", 0, "allowed: 1 or more"),
    ],
)
def test_other_values_are_named(tiny: MetaTrainSettings, key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"meta_train\.{key}: .*{words}"):
        replace(tiny, **{key: value})  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_set(tiny: MetaTrainSettings, data_root: str, tmp_path: Path) -> None:
    settings, serial = replace(tiny, device="cuda"), ExecutorSettings(kind="serial")
    with pytest.raises(ConfigError, match=r"sees no GPU .*set it to cpu"):
        meta_train(settings, root=tmp_path, executor=serial, roots=[data_root])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_nearly_the_same(tiny: MetaTrainSettings, data_root: str, slots: list[Slot]) -> None:
    weights = start(tiny)
    wanted = [open_worker(tiny, data_root).learn(weights, HEAD, slot) for slot in slots]
    worker = open_worker(tiny, data_root, Compute(device="cuda"))
    assert_close(worker.learn(weights, HEAD, slots[0]), wanted[:1], tiny, share=2e-2)
    [group] = grouped(slots, len(slots))
    assert_close(worker.learn(weights, HEAD, group), wanted, tiny, share=2e-2)
    assert 0.0 <= worker.evaluate(weights, slots[0]) <= 1.0
