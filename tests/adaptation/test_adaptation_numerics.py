"""Mode fast in bf16: near float32, the same twice, float32 wherever values add up; and the rule that decides it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from plain_gradient import sparse_gradient
from tiny_task import GRAPH, PLANS, plan_of, tiny_backbone, tiny_task
from torch import Tensor

from tinytrain_dist.adaptation import fine_tuning, numerics
from tinytrain_dist.adaptation.fine_tuning import EpisodeObjective, fine_tune
from tinytrain_dist.adaptation.fisher import fisher_information
from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.adaptation.settings import FineTuneSettings, Numerics
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.graphs.adapters import adapter_plan
from tinytrain_dist.graphs.update_plan import LayerUpdate, full_plan

needs_bf16 = pytest.mark.skipif(not numerics.has_bf16(), reason="the CPU has no instructions for bf16")
SETTINGS = FineTuneSettings(iterations=12, mode="fast", pool_views=4)
END = len(GRAPH.layers)


def task_in(arithmetic: Numerics, settings: FineTuneSettings = SETTINGS) -> TargetTask:
    return tiny_task(tiny_backbone(dtype=torch.float32), settings=replace(settings, numerics=arithmetic))


def flat_gradient(task: TargetTask, name: str) -> tuple[float, Tensor]:
    tuning = fine_tuning.Tuning(task, PLANS[name], EpisodeObjective())
    loss, gradient = tuning.step(0)
    return float(loss), gradient


@needs_bf16
@pytest.mark.parametrize("name", PLANS)
def test_loss_and_gradient_are_near_those_of_float32(name: str) -> None:
    (loss, expected), (near, found) = (flat_gradient(task_in(a), name) for a in ("fp32", "bf16"))
    assert near == pytest.approx(loss, rel=0.03) and near != loss
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found, expected, dim=0) > 0.99
    assert float(found.norm()) == pytest.approx(float(expected.norm()), rel=0.05)


@needs_bf16
@pytest.mark.parametrize("name", PLANS)
def test_the_same_task_twice_gives_the_same_bits(name: str) -> None:
    first, second = (fine_tune(task_in("bf16"), PLANS[name]) for _ in range(2))
    assert first == second and first.status == "ok"


@needs_bf16
@pytest.mark.parametrize("method", ["none", "last_layer", "tiny_tl", "full_train", "transductive"])
def test_methods_learn_as_in_float32(method: str) -> None:
    """Nine queries: at most one falls the other way."""
    plan = {"none": plan_of(), "last_layer": plan_of(LayerUpdate(layer=END - 1)), "tiny_tl": adapter_plan(GRAPH)}
    single, half = (METHODS[method].adapt(task_in(a), plan.get(method, full_plan(GRAPH))) for a in ("fp32", "bf16"))
    assert single.accuracy_after is not None and half.accuracy_after is not None
    assert half.accuracy_before == pytest.approx(single.accuracy_before, abs=0.12)
    assert half.accuracy_after == pytest.approx(single.accuracy_after, abs=0.12)
    assert half.losses == pytest.approx(single.losses, rel=0.15, abs=0.02)


@needs_bf16
def test_only_what_flows_between_layers_is_rounded() -> None:
    task = task_in("bf16")
    for cut in (0, 3, 8, END):
        for state in (task.support_state(cut), task.pseudo_state(0, cut), task.query_state(cut)):
            assert state.x.dtype == torch.bfloat16
            assert state.residual is None or state.residual.dtype == torch.bfloat16
    _, tape = sparse_gradient(task, PLANS["everything"])
    assert {x.dtype for x in tape.inputs.values()} == {torch.bfloat16}
    tuning = fine_tuning.Tuning(task, PLANS["everything"], EpisodeObjective())
    assert tuning.weights.values.dtype == torch.float32
    assert fisher_information(task, GRAPH.last_blocks(2)).channels[END - 1].dtype == "float64"
    assert all(layer[0].dtype == torch.float32 for layer in task.network.layers)


@needs_bf16
def test_fisher_information_is_near_that_of_float32() -> None:
    inspected = GRAPH.last_blocks(2)
    single, half = (fisher_information(task_in(a), inspected) for a in ("fp32", "bf16"))
    for index in inspected:
        assert half.potential(index) == pytest.approx(single.potential(index), rel=0.05)


@needs_bf16
def test_micro_batches_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, whole = flat_gradient(task_in("bf16"), "everything")
    monkeypatch.setattr(fine_tuning, "TAPE_BYTES", 1)
    same, parts = flat_gradient(task_in("bf16"), "everything")
    assert same == pytest.approx(loss, rel=1e-5)
    assert torch.cosine_similarity(parts, whole, dim=0) > 0.9999


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """A CPU whose capabilities are the parameter; ``None``: PyTorch does not say."""
    told = request.param
    if told is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    numerics.capabilities.cache_clear()
    yield
    monkeypatch.undo()
    numerics.capabilities.cache_clear()


TILES = {"cpu_name": "x", "l2_cache_size": 1, "avx512_bf16": True, "amx_bf16": True}
VECTORS = TILES | {"amx_bf16": False}
NEITHER = VECTORS | {"avx512_bf16": False}


@pytest.mark.parametrize(
    ("cpu", "has", "best"),
    [
        (TILES, True, "bf16"),
        (VECTORS, True, "fp32"),
        (NEITHER, False, "fp32"),
        ({}, False, "fp32"),
        (None, False, "fp32"),
    ],
    indirect=["cpu"],
)
def test_bf16_is_chosen_where_the_cpu_has_matrix_units_for_it(cpu: None, has: bool, best: str) -> None:
    assert (numerics.has_bf16(), numerics.best_numerics()) == (has, best)


@pytest.mark.parametrize("cpu", [NEITHER, None], indirect=True)
def test_a_cpu_without_bf16_refuses_it(cpu: None) -> None:
    with pytest.raises(ConfigError, match=r"finetune.numerics: found 'bf16', but .* avx512_bf16 .*; allowed: fp32"):
        task_in("bf16")
    assert task_in("fp32").support_input.dtype == torch.float32


def test_the_reference_is_float32() -> None:
    with pytest.raises(ConfigError, match=r"finetune.numerics: found 'bf16'; allowed: fp32, in mode reference"):
        FineTuneSettings(numerics="bf16")
    with pytest.raises(ConfigError, match=r"finetune.numerics: found 'int8'; allowed: fp32, bf16"):
        FineTuneSettings(mode="fast", numerics="int8")  # type: ignore[arg-type]
