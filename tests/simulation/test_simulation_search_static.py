"""The search of a static scheme: inside its budget, better than chance, the same after any interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.costs.counters import paper_memory
from tinytrain_dist.costs.macs import plan_macs
from tinytrain_dist.costs.schemes import Scheme, SchemeFile, find_scheme, read_scheme, scheme_plan
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.foundation.errors import ConfigError, RunLockedError, StorageError, TooManyFailuresError
from tinytrain_dist.foundation.seeding import generator_of
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.budget import Budget
from tinytrain_dist.simulation import scheme_scores
from tinytrain_dist.simulation.scheme_scores import ScoreFile
from tinytrain_dist.simulation.scheme_search import SHARES, Evolution, SearchSpace, evolve
from tinytrain_dist.simulation.search_static import SearchSettings, _published, search_static, state_path

SERIAL = ExecutorSettings(kind="serial")
GRAPH = layer_graph("mcunet", 64)
SPACE = SearchSpace(GRAPH, Budget(memory_bytes=700_000, backward_macs=int(0.3 * GRAPH.forward_macs)))


def tiny(**changes: Any) -> SearchSettings:
    fields: dict[str, Any] = {
        "backbone": "mobilenet_v2_w0.1",
        "memory_bytes": 1_000_000,
        "compute_share": 0.05,
        "evolution": Evolution(generations=2, population=3, seed=0),
        "num_tasks": 2,
        "episodes": EpisodeSettings(way=3, shot=2, query=3),
        "resolution": 32,
        "finetune": FineTuneSettings(mode="fast", iterations=2),
    }
    return SearchSettings(**(fields | changes))


def find(out: Path, **changes: Any) -> SchemeFile:
    return search_static(tiny(**changes), out=out, executor=SERIAL, command="a test")


def fits(space: SearchSpace, scheme: Scheme) -> bool:
    plan = scheme_plan(space.graph, scheme)
    macs = plan_macs(space.graph, plan, chain="everything").backward
    return (
        macs <= space.budget.backward_macs and paper_memory(space.graph, plan).total_bytes <= space.budget.memory_bytes
    )


def value(scheme: Scheme) -> float:
    """A landscape with a known direction: late layers are worth more, whole ones most."""
    return sum(layer * share for layer, share in scheme.input_shares) + 0.01 * scheme.num_last_biases


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.0, 1.0))
def test_every_draw_mutation_and_cross_is_inside_the_budget(seed: int, tilt: float) -> None:
    rng = np.random.default_rng(seed)
    chance = {layer: 0.01 + tilt * layer for layer in SPACE.layers}
    one, other = SPACE.draw(rng, chance), SPACE.draw(rng, chance)
    for genome in (one, other, SPACE.mutate(rng, one, chance), SPACE.cross(rng, one, other)):
        assert genome.shares and {share for _, share in genome.shares} <= set(SHARES)
        assert fits(SPACE, SPACE.scheme(genome))
        assert all(GRAPH.layer(layer).groups == 1 for layer, _ in genome.shares)


def test_evolution_improves_on_its_first_generation_and_asks_for_nothing_twice() -> None:
    asked: list[str] = []
    best: list[float] = []

    def evaluate(schemes: Sequence[Scheme]) -> list[float]:
        asked.extend(scheme.hash for scheme in schemes)
        return [value(scheme) for scheme in schemes]

    evolution = Evolution(generations=30, population=6, seed=1)
    ranked = evolve(SPACE, evaluate, evolution, watch=lambda generation, score: best.append(score))
    assert len(asked) == len(set(asked)) == len(ranked) + 1
    assert best == sorted(best) and best[-1] > best[0] and len(best) == 30
    assert all(fits(SPACE, scheme) for scheme, _ in ranked)
    assert [score for _, score in ranked] == sorted((value(s) for s, _ in ranked), reverse=True)
    assert ranked == evolve(SPACE, lambda schemes: [value(s) for s in schemes], evolution)


def test_a_good_scheme_is_in_the_first_generation() -> None:
    known = Scheme(backbone="mcunet", input_shares=((GRAPH.layers[-1].index, 0.125),), num_last_biases=1)
    ranked = evolve(
        SPACE, lambda s: [float(x == known) for x in s], Evolution(generations=1, population=2, seed=0), first=[known]
    )
    assert ranked[0] == (known, 1.0)


@pytest.mark.slow
def test_the_found_scheme_says_how_it_was_found(tmp_path: Path) -> None:
    file = find(tmp_path / "found.yaml")
    assert read_scheme(tmp_path / "found.yaml") == file
    assert fits(tiny().space, file.scheme)
    assert file.search is not None and file.search.command == "a test"
    assert (file.search.num_tasks, file.search.generations, file.search.population, file.search.seed) == (2, 2, 3, 0)
    assert file.search.budget_memory_bytes == 1_000_000 and file.search.domains == ["emoji", "icons"]
    assert file.memory_bytes is not None and file.memory_bytes <= 1_000_000
    assert file.search.validation_accuracy >= max(validation for _, validation, _ in file.search.others.values())


Score = Callable[[str, str], float]
"""Task id, hash of a scheme -> its accuracy."""


def drawn(task_id: str, scheme: str) -> float:
    return float(generator_of("a score", task_id, scheme).random())


def found_by(score: Score, monkeypatch: pytest.MonkeyPatch, out: Path) -> SchemeFile:
    def scores(flat: object, setup: object, spec: EpisodeSpec, schemes: tuple[Scheme, ...]) -> list[float]:
        return [score(spec.task_id, scheme.hash) for scheme in schemes]

    monkeypatch.setattr(scheme_scores, "score_schemes", scores)
    return find(out)


def test_accuracies_before_and_after_are_of_the_same_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = found_by(drawn, monkeypatch, tmp_path / "found.yaml")
    nothing = Scheme(backbone=file.backbone, input_shares=(), num_last_biases=0)
    pairs = [
        [sum(drawn(task, scheme.hash) for task in tasks) / len(tasks) for scheme in (nothing, file.scheme)]
        for tasks in task_sets(tiny())
    ]
    search = file.search
    assert search is not None
    assert pairs == [
        [search.accuracy_before, search.accuracy],
        [search.validation_accuracy_before, search.validation_accuracy],
        [search.held_out_accuracy_before, search.held_out_accuracy],
    ]


def test_held_out_tasks_choose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = found_by(drawn, monkeypatch, tmp_path / "first.yaml")
    _, validation, held_out = task_sets(tiny())

    def reversed_on(tasks: tuple[str, ...]) -> Score:
        return lambda task, scheme: 1 - drawn(task, scheme) if task in tasks else drawn(task, scheme)

    again = found_by(reversed_on(held_out), monkeypatch, tmp_path / "again.yaml")
    assert again.scheme == first.scheme and again.search != first.search
    assert found_by(reversed_on(validation), monkeypatch, tmp_path / "other.yaml").scheme != first.scheme


def task_sets(settings: SearchSettings) -> list[tuple[str, ...]]:
    """Return the task ids of evolution, validation and held-out tasks: the source domains in turn."""
    domains, size = [open_domain(name) for name in settings.domains], settings.num_tasks
    ids = [
        EpisodeSpec.of(
            domains[number % 2], split="valid", settings=settings.episodes, seed=settings.evolution.seed,
            index=number // 2,
        ).task_id
        for number in range(3 * size)
    ]  # fmt: skip
    assert len(set(ids)) == 3 * size
    return [tuple(ids[start : start + size]) for start in range(0, 3 * size, size)]


@pytest.mark.slow
def test_scores_of_a_search_without_held_out_tasks_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find(tmp_path / "found.yaml")
    held_out = task_sets(tiny())[2]
    path = state_path(tmp_path / "found.yaml")
    document = json.loads(path.read_text())
    for task in held_out:
        del document["scores"][task]
    path.write_text(json.dumps(document))
    add, computed = ScoreFile.add, list[str]()

    def noted(self: ScoreFile, task_id: str, found: Mapping[str, float]) -> None:
        computed.append(task_id)
        add(self, task_id, found)

    monkeypatch.setattr(ScoreFile, "add", noted)
    assert find(tmp_path / "found.yaml") == whole
    assert sorted(computed) == sorted(held_out)


@pytest.mark.parametrize(
    "name", [f"{net}{mix}--searched" for net in ("mobilenet_v2", "proxylessnas") for mix in ("", "_no_mix")]
)
def test_a_scheme_that_a_search_found_is_no_start_of_one(name: str) -> None:
    """Its own command would else ask for other schemes than it did when it was found."""
    file = find_scheme(name)
    assert file.search is not None
    assert list(_published(file.backbone)) == [f"{file.backbone}--mcunetv3"]


@pytest.mark.slow
def test_an_interrupted_search_ends_as_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find(tmp_path / "whole.yaml")
    add, kept = ScoreFile.add, list[int]()

    def interrupted(self: ScoreFile, task_id: str, found: Mapping[str, float]) -> None:
        add(self, task_id, found)
        kept.append(len(found))
        if len(kept) in (1, 4):
            raise KeyboardInterrupt

    monkeypatch.setattr(ScoreFile, "add", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            find(tmp_path / "parts.yaml")
        assert not (tmp_path / "parts.yaml").exists()
    assert find(tmp_path / "parts.yaml") == whole
    assert (tmp_path / "parts.yaml").read_bytes() == (tmp_path / "whole.yaml").read_bytes()
    assert state_path(tmp_path / "parts.yaml").read_bytes() == state_path(tmp_path / "whole.yaml").read_bytes()

    monkeypatch.setattr(scheme_scores, "score_schemes", lambda *args: pytest.fail("computed again"))
    assert find(tmp_path / "parts.yaml") == whole


@pytest.mark.slow
def test_more_generations_continue_from_the_scores_that_are_there(tmp_path: Path) -> None:
    find(tmp_path / "found.yaml")
    longer = Evolution(generations=3, population=3, seed=0)
    assert find(tmp_path / "found.yaml", evolution=longer) == find(tmp_path / "fresh.yaml", evolution=longer)


@pytest.mark.slow
def test_the_scores_of_another_search_are_refused(tmp_path: Path) -> None:
    find(tmp_path / "found.yaml")
    with pytest.raises(RunLockedError, match="resolution: 32 there, 40 asked"):
        find(tmp_path / "found.yaml", resolution=40)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identity": {}}', '{"identity": {}, "scores": {"t": {"s": "x"}}}'])
def test_damaged_scores_are_named(text: str, tmp_path: Path) -> None:
    state_path(tmp_path / "found.yaml").write_text(text)
    with pytest.raises(StorageError, match=r"found\.yaml\.scores\.json: is no state of a search"):
        find(tmp_path / "found.yaml")


def test_a_budget_without_a_layer_says_what_the_last_one_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no layer of mobilenet_v2_w0.1 fits the budget of 1000 bytes.* needs \d+"):
        find(tmp_path / "found.yaml", memory_bytes=1000)


def test_a_task_that_fails_ends_the_search_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> list[float]:
        raise RuntimeError("no luck")

    monkeypatch.setattr(scheme_scores, "score_schemes", fails)
    with pytest.raises(TooManyFailuresError, match=r"emoji/valid.* error: RuntimeError: no luck"):
        find(tmp_path / "found.yaml")


@pytest.mark.parametrize("change", [{"generations": 0}, {"population": 1}])
def test_an_evolution_needs_generations_and_a_population(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(change))}: found"):
        Evolution(**({"generations": 1, "population": 2, "seed": 0} | change))


@pytest.mark.slow
def test_ray_finds_what_this_process_finds(tmp_path: Path) -> None:
    serial = find(tmp_path / "serial.yaml")
    ray = search_static(
        tiny(), out=tmp_path / "ray.yaml", executor=ExecutorSettings(num_workers=2), command="a test"
    )  # fmt: skip
    assert ray == serial
