"""The cache of frozen activations: the same bits however they came about, within its budget."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_task import GRAPH, SIZE, tiny_backbone
from torch import Tensor

from tinytrain_dist.adaptation import prefix_cache
from tinytrain_dist.adaptation.prefix_cache import ImageSet, PrefixCache, fill
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import LayerState

END = len(GRAPH.layers)
NETWORK = FoldedNetwork(tiny_backbone(dtype=torch.float32))
SETS = {
    name: torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(count)).contiguous(
        memory_format=torch.channels_last
    )
    for name, count in (("support", 5), ("query", 3))
}
requests = st.lists(st.tuples(st.sampled_from(sorted(SETS)), st.integers(0, END)), min_size=1, max_size=12)


def num_bytes(state: LayerState) -> int:
    return sum(t.numel() * t.element_size() for t in state if t is not None)


def kept_bytes(cache: PrefixCache) -> int:
    return sum(num_bytes(state) for states in cache._states.values() for state in states.values())


def assert_same_bits(found: LayerState, expected: LayerState) -> None:
    assert torch.equal(found.x, expected.x)
    assert (found.residual is None) == (expected.residual is None)
    if found.residual is not None and expected.residual is not None:
        assert torch.equal(found.residual, expected.residual)


@given(requests, st.sampled_from([0, 10_000, 100_000, 10**9]))
@settings(max_examples=40)
def test_cached_continued_and_recomputed_are_the_same_bits(asked: list[tuple[str, int]], budget: int) -> None:
    cache = PrefixCache(NETWORK, budget_bytes=budget)
    for name, cut in asked:
        expected = NETWORK.run(LayerState(SETS[name]), stop=cut)
        assert_same_bits(cache.state(name, cut, images=lambda name=name: SETS[name]), expected)  # type: ignore[misc]
        assert kept_bytes(cache) <= budget


def test_a_later_cut_continues_from_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made, ran = list[str](), list[tuple[int, int | None]]()
    true_run = NETWORK.run

    def run(state: LayerState, *, start: int = 0, stop: int | None = None) -> LayerState:
        ran.append((start, stop))
        return true_run(state, start=start, stop=stop)

    def images(name: str) -> Callable[[], Tensor]:
        return lambda: (made.append(name), SETS[name])[1]

    monkeypatch.setattr(NETWORK, "run", run)
    cache = PrefixCache(NETWORK)
    for cut in (4, 4, 7, 4, 9, 2):
        cache.state("support", cut, images=images("support"))
    assert ran == [(0, 4), (4, 7), (7, 9), (0, 2)]
    assert made == ["support", "support"]


def test_what_does_not_fit_is_computed_again_and_leaves_room_for_what_does() -> None:
    small, large = (num_bytes(NETWORK.run(LayerState(SETS["support"]), stop=cut)) for cut in (9, 4))
    assert small < large
    cache = PrefixCache(NETWORK, budget_bytes=small)
    for cut in (4, 9, 4):
        cache.state("support", cut, images=lambda: SETS["support"])
    assert kept_bytes(cache) == small


def test_images_that_are_asked_for_bare_cost_no_budget() -> None:
    cache = PrefixCache(NETWORK, budget_bytes=10**9)
    assert torch.equal(cache.state("support", 0, images=lambda: SETS["support"]).x, SETS["support"])
    assert kept_bytes(cache) == 0


def test_passing_images_in_parts_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [PrefixCache(NETWORK).state("support", cut, images=lambda: SETS["support"]) for cut in range(END + 1)]
    monkeypatch.setattr(prefix_cache, "IMAGES_PER_PASS", 2)
    for cut, expected in enumerate(whole):
        assert_same_bits(PrefixCache(NETWORK).state("support", cut, images=lambda: SETS["support"]), expected)


@given(requests, st.integers(1, END), st.integers(1, 12))
@settings(max_examples=40)
def test_sets_filled_together_have_the_states_they_have_alone(
    asked: list[tuple[str, int]], cut: int, images_per_pass: int
) -> None:
    caches = [PrefixCache(NETWORK), PrefixCache(NETWORK)]
    for place, (name, earlier) in enumerate(asked):
        caches[place % 2].state(name, earlier, images=lambda name=name: SETS[name])  # type: ignore[misc]
    sets = [ImageSet(cache, name, partial(SETS.__getitem__, name)) for cache in caches for name in SETS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_cache, "IMAGES_PER_PASS", images_per_pass)
        fill(sets, cut)
    for one in sets:
        found = one.cache.state(one.name, cut, images=lambda: pytest.fail("known since it was filled"))
        expected = NETWORK.run(LayerState(SETS[one.name]), stop=cut)
        torch.testing.assert_close(found.x, expected.x)
        assert (found.residual is None) == (expected.residual is None)


def test_sets_are_filled_in_few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run = list[int](), NETWORK.run

    def watched(state: LayerState, *, start: int = 0, stop: int | None = None) -> LayerState:
        if start != stop:
            sizes.append(len(state.x))
        return run(state, start=start, stop=stop)

    monkeypatch.setattr(NETWORK, "run", watched)
    monkeypatch.setattr(prefix_cache, "IMAGES_PER_PASS", 16)
    caches = [PrefixCache(NETWORK) for _ in range(4)]
    sets = [ImageSet(cache, name, partial(SETS.__getitem__, name)) for cache in caches for name in SETS]
    for _ in range(2):
        fill(sets, 4)
    assert sizes == [16, 16], "5 + 3 images of four caches, then nothing"
