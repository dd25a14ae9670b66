"""What each method decides and gives, and that another package can add one."""

from collections.abc import Iterator
from importlib import metadata

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from tiny_task import GRAPH, plan_of, tiny_backbone, tiny_episode, tiny_task

from tinytrain_dist.adaptation.fine_tuning import Adaptation, EpisodeObjective
from tinytrain_dist.adaptation.fisher import FisherInformation, fisher_information
from tinytrain_dist.adaptation.methods import METHODS, Method, PlanQuestion
from tinytrain_dist.adaptation.methods.raw_pixels import pixel_features
from tinytrain_dist.adaptation.methods.transductive import TransductiveObjective
from tinytrain_dist.adaptation.selection import Decision
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.adaptation.weight_norms import channel_norms, weight_norm
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.head import class_means
from tinytrain_dist.costs.counters import paper_memory
from tinytrain_dist.foundation.errors import CheckpointError, ConfigError
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.graphs.update_plan import UpdatePlan, full_plan, updated_weights


def test_transductive_adds_the_entropy_of_what_is_predicted_of_the_query() -> None:
    task, objective = tiny_task(), TransductiveObjective()
    support, pseudo, query = (state.x for state in objective.states(task, cut=0, iteration=1))
    assert torch.equal(query, task.query_input) and torch.equal(pseudo, task.view(1))
    rng = np.random.default_rng(0)
    features = [torch.from_numpy(rng.normal(size=(len(x), 6))) for x in (support, pseudo, query)]
    chances = torch.softmax(
        task.logits(features[2], class_means(features[0], task.support_labels, task.way)), dim=1
    ).numpy()  # fmt: skip
    entropies = scipy.stats.entropy(chances, axis=1)  # in nats
    assert entropies.mean() > 0.01
    plain = EpisodeObjective().loss(task, features[:2])
    assert float(objective.loss(task.head, features) - plain) == pytest.approx(entropies.mean(), abs=1e-9)


def question_of(task: TargetTask, *, memory_bytes: int = 10**9, **settings: object) -> tuple[PlanQuestion, list[int]]:
    """Return a question, and a list that grows by one for each Fisher pass."""
    chosen = SelectionSettings(inspect_blocks=2, **settings)  # type: ignore[arg-type]
    passes: list[int] = []

    def fisher() -> FisherInformation:
        passes.append(1)
        return fisher_information(task, GRAPH.last_blocks(chosen.inspect_blocks))

    question = PlanQuestion(
        graph=GRAPH,
        task_id=task.task_id,
        settings=chosen,
        budget=Budget(memory_bytes=memory_bytes, backward_macs=10**12),
        memory_of=lambda plan: paper_memory(GRAPH, plan).total_bytes,
        fisher=fisher,
        weight_norm=lambda layer: weight_norm(task.network, layer),
        channel_norms=lambda layer, side: channel_norms(task.network, layer, side),
    )
    return question, passes


def test_the_registry_finds_the_methods_by_their_own_names() -> None:
    core = {"raw_pixels", "none", "full_train", "last_layer", "tinytrain"}
    rest = {"transductive", "tiny_tl", "adapter_drop_25", "adapter_drop_50", "adapter_drop_75", "sparse_update"}
    assert set(METHODS) == core | rest
    assert METHODS.patterns == ("layer_alone_<layer>[_top|_second|_third|_bottom]",)
    for name in [*METHODS, "layer_alone_9", "layer_alone_9_third"]:
        assert METHODS[name].name == name
        assert METHODS[name].citation


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown method 'tinytrian'; did you mean 'tinytrain'"):
        METHODS["tinytrian"]


@pytest.mark.parametrize("name", ["raw_pixels", "none", "full_train", "last_layer"])
def test_methods_without_a_budget_ask_neither_fisher_nor_the_device(name: str) -> None:
    task = tiny_task()
    poor, passes = question_of(task, memory_bytes=1)
    rich, _ = question_of(task)
    assert METHODS[name].decide(poor) == METHODS[name].decide(rich)
    assert not passes and not METHODS[name].has_budget and not METHODS[name].measures_fisher


def test_full_train_updates_every_weight_shift_and_scale() -> None:
    question, _ = question_of(tiny_task())
    decision = METHODS["full_train"].decide(question)
    assert decision == Decision(status="ok", plan=full_plan(GRAPH))
    assert METHODS["full_train"].is_full


@pytest.mark.parametrize("name, weights", [("mcunet", 92_160), ("mobilenet_v2", 50_176), ("proxylessnas", 36_864)])
def test_last_layer_is_the_last_convolution_of_the_paper(name: str, weights: int) -> None:
    graph = layer_graph(name)
    question, _ = question_of(tiny_task())
    decision = METHODS["last_layer"].decide(PlanQuestion(**{**vars(question), "graph": graph}))
    assert decision.plan.earliest_layer == len(graph.layers) - 1
    assert updated_weights(decision.plan, graph) == weights


def test_none_is_the_frozen_network_and_runs_no_step() -> None:
    task = tiny_task()
    question, _ = question_of(task)
    decision = METHODS["none"].decide(question)
    assert (decision.status, decision.plan.is_empty) == ("not_applicable", True)
    outcome = METHODS["none"].adapt(task, decision.plan)
    assert outcome == Adaptation(accuracy_before=task.accuracy_before, accuracy_after=task.accuracy_before)


def test_accuracy_before_is_nearest_prototype_by_cosine_written_out() -> None:
    backbone = tiny_backbone()
    task = tiny_task(backbone)
    with torch.no_grad():
        support, query = backbone(task.support_input).numpy(), backbone(task.query_input).numpy()
    labels = task.episode.support_labels
    means = np.stack([support[labels == c].mean(0) for c in range(task.way)])
    cosines = (query @ means.T) / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    assert task.accuracy_before == (cosines.argmax(1) == task.episode.query_labels).mean()


def test_raw_pixels_runs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task()
    question, _ = question_of(task)
    monkeypatch.setattr(FoldedNetwork, "run", lambda *args, **kwargs: pytest.fail("the network ran"))
    method = METHODS["raw_pixels"]
    outcome = method.adapt(task, method.decide(question).plan)
    assert outcome.accuracy_before == outcome.accuracy_after
    assert not method.uses_network and method.variant_settings(FineTuneSettings(), SelectionSettings()) == {}


def test_pixel_features_are_centred_per_image_and_have_one_size() -> None:
    images = tiny_episode().support_images
    features = pixel_features(images)
    assert features.shape == (7, 3 * 32 * 32)
    torch.testing.assert_close(features.mean(1), torch.zeros(7), rtol=0, atol=1e-4)
    brighter = pixel_features(np.clip(images.astype(int) // 2 + 40, 0, 255).astype(np.uint8))
    same = torch.nn.functional.cosine_similarity(features, brighter)
    assert bool((same > 0.999).all()), "brightness and contrast do not matter"
    large = pixel_features(images.repeat(4, axis=2).repeat(4, axis=3))
    torch.testing.assert_close(large, features, rtol=0, atol=1e-3)


def test_tinytrain_measures_once_and_stays_in_the_budget() -> None:
    task = tiny_task()
    question, passes = question_of(task)
    decision = METHODS["tinytrain"].decide(question)
    assert passes == [1]
    assert decision.status == "ok"
    assert {u.layer for u in decision.plan.updates} == set(GRAPH.last_blocks(2)), "all fit an ample budget"
    delta = fisher_information(task, (9,)).channels[9]
    assert decision.plan.updates[-1].channels == tuple(sorted(np.argsort(-delta)[:10].tolist()))
    outcome = METHODS["tinytrain"].adapt(task, decision.plan)
    assert outcome.status == "ok" and len(outcome.losses) == task.settings.iterations


def test_tinytrain_without_room_changes_nothing() -> None:
    task = tiny_task()
    question, _ = question_of(task, memory_bytes=1)
    decision = METHODS["tinytrain"].decide(question)
    assert decision.status == "infeasible"
    assert decision.reason is not None and "bytes" in decision.reason
    outcome = METHODS["tinytrain"].adapt(task, decision.plan)
    assert outcome.accuracy_after == outcome.accuracy_before and outcome.losses == ()


def test_tinytrain_on_the_input_side_saves_smaller_inputs() -> None:
    task = tiny_task()
    question, _ = question_of(task, side="input")
    decision = METHODS["tinytrain"].decide(question)
    weight = task.network.backbone.unit(9).conv.weight.detach().numpy()
    norms = np.sqrt((weight**2).sum(axis=(0, 2, 3)))
    last = decision.plan.updates[-1]
    assert (last.layer, last.side) == (9, "input")
    assert last.channels == tuple(sorted(np.argsort(-norms)[:6].tolist()))
    assert METHODS["tinytrain"].adapt(task, decision.plan).status == "ok"


def test_weights_that_are_not_numbers_make_no_task() -> None:
    backbone = tiny_backbone()
    with torch.no_grad():
        backbone.unit(2).conv.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not finite, or overflow, in layer 2"):
        tiny_task(backbone)


@pytest.mark.parametrize("layer", [1, 4, 5, 6, 9])
def test_norms_per_input_channel(layer: int) -> None:
    network = FoldedNetwork(tiny_backbone())
    weight = network.backbone.unit(layer).conv.weight.detach().numpy()
    rows: NDArray[np.float64] = weight if GRAPH.layer(layer).role == "depthwise" else weight.transpose(1, 0, 2, 3)
    norms = channel_norms(network, layer, "input")
    np.testing.assert_allclose(norms, [np.linalg.norm(row) for row in rows], rtol=1e-12)
    assert weight_norm(network, layer) == pytest.approx(float(np.sqrt((norms**2).sum())))


def test_a_variant_names_what_the_outcome_depends_on_and_nothing_else() -> None:
    finetune, selection = FineTuneSettings(), SelectionSettings()
    tinytrain = METHODS["tinytrain"]
    base = tinytrain.variant_settings(finetune, selection)
    for other in (
        SelectionSettings(side="input"),
        SelectionSettings(memory_bytes=10),
        SelectionSettings(criterion="x"),
    ):
        assert tinytrain.variant_settings(finetune, other) != base
    for name in ("full_train", "last_layer"):
        method = METHODS[name]
        fixed = method.variant_settings(finetune, selection)
        assert method.variant_settings(finetune, SelectionSettings(channel_ratio=0.25)) == fixed
        assert method.variant_settings(FineTuneSettings(iterations=3), selection) != fixed
        assert method.variant_settings(FineTuneSettings(momentum=0.5), selection) == fixed, "Adam has no momentum"
    none = METHODS["none"]
    assert none.variant_settings(FineTuneSettings(iterations=3, scale=4.0), selection) == {"distance": "cosine"}


class LastBias(Method):
    """A researcher's method: the shift of the last normalisation."""

    name = "last_bias"
    citation = "a test"

    def decide(self, question: PlanQuestion) -> Decision:
        last = question.graph.layers[-1].index
        return Decision(status="ok", plan=UpdatePlan(backbone=question.graph.name, bias_layers=(last,)))


last_bias = LastBias()


@pytest.fixture
def another_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Offer ``last_bias`` as an installed distribution would."""
    entry = metadata.EntryPoint(name="last_bias", value=f"{__name__}:last_bias", group="tinytrain_dist.methods")
    list(METHODS)
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [entry] if group == entry.group else [])
    monkeypatch.setattr(METHODS, "_items", dict(METHODS._items))
    monkeypatch.setattr(METHODS, "_loaded", False)
    yield


@pytest.mark.usefixtures("another_package")
def test_a_method_of_another_package_is_found_and_runs() -> None:
    assert "last_bias" in METHODS and "tinytrain" in METHODS
    method = METHODS["last_bias"]
    task = tiny_task()
    question, _ = question_of(task)
    decision = method.decide(question)
    assert decision.plan == plan_of(bias=(9,))
    outcome = method.adapt(task, decision.plan)
    assert outcome.status == "ok" and len(outcome.losses) == 4
    assert method.variant_settings(FineTuneSettings(), SelectionSettings())["iterations"] == 40


def test_it_is_gone_when_the_package_is() -> None:
    assert "last_bias" not in METHODS
