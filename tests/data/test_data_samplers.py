"""Laws of both samplers on synthetic class sizes, and the statistics of Meta-Dataset's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrain_dist.data.samplers import fixed, meta_dataset
from tinytrain_dist.data.samplers.class_pool import ClassPool, integer, permutation
from tinytrain_dist.data.samplers.settings import EpisodeSettings
from tinytrain_dist.foundation.errors import ConfigError, DataError
from tinytrain_dist.foundation.seeding import generator_of

SIZES = st.lists(st.integers(2, 600), min_size=5, max_size=120)
META = EpisodeSettings(sampler="meta_dataset")


def pool_of(sizes: list[int], superclasses: list[str] | None = None) -> ClassPool:
    supers = None if superclasses is None else tuple(superclasses)
    return ClassPool(
        name="synthetic", class_ids=tuple(range(100, 100 + len(sizes))), sizes=tuple(sizes), superclasses=supers
    )


@given(sizes=SIZES, seed=st.integers(0, 2**32))
def test_meta_dataset_laws(sizes: list[int], seed: int) -> None:
    shape = meta_dataset.draw_shape(pool_of(sizes), settings=META, rng=generator_of(seed))
    way = len(shape.class_ids)
    assert 5 <= way <= min(50, len(sizes))
    assert len(set(shape.class_ids)) == way == len(shape.shots) == len(shape.queries)
    assert len(set(shape.queries)) == 1 and 1 <= shape.queries[0] <= 10
    assert sum(shape.shots) <= 500
    for class_id, shot, query in zip(shape.class_ids, shape.shots, shape.queries, strict=True):
        assert shot >= 1 and shot + query <= sizes[class_id - 100]


@given(
    sizes=st.lists(st.integers(2, 600), min_size=5, max_size=50),
    beta=st.floats(0, 1, exclude_max=True),
    data=st.data(),
)
def test_the_sum_of_shots_never_exceeds_the_support_size(sizes: list[int], beta: float, data: st.DataObject) -> None:
    alphas = data.draw(st.lists(st.floats(math.log(0.5), math.log(2)), min_size=len(sizes), max_size=len(sizes)))
    query = min(10, min(sizes) // 2)
    support = meta_dataset.support_size(sizes, query=query, beta=beta)
    assert len(sizes) <= support <= min(500, sum(min(100, n - query) for n in sizes))
    shots = meta_dataset.draw_shots(sizes, query=query, support=support, alphas=alphas)
    assert sum(shots) <= support and min(shots) >= 1


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=60),
    way=st.integers(2, 30),
    shot=st.integers(1, 20),
    query=st.integers(1, 20),
    clamp=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_fixed_laws(sizes: list[int], way: int, shot: int, query: int, clamp: bool, seed: int) -> None:
    asked = EpisodeSettings(way=way, shot=shot, query=query, clamp_way=clamp)
    usable = sum(size > shot for size in sizes)
    if usable < 2 or (way > usable and not clamp):
        with pytest.raises(DataError, match=f"{usable} of {len(sizes)} classes"):
            fixed.draw_shape(pool_of(sizes), settings=asked, rng=generator_of(seed))
        return
    shape = fixed.draw_shape(pool_of(sizes), settings=asked, rng=generator_of(seed))
    assert len(set(shape.class_ids)) == len(shape.class_ids) == min(way, usable)
    assert set(shape.shots) == {shot}
    for class_id, num_query in zip(shape.class_ids, shape.queries, strict=True):
        assert num_query == min(query, sizes[class_id - 100] - shot) >= 1


def test_meta_dataset_statistics() -> None:
    """Way is uniform on 5..50; with 20 images a class (q = 10) the mean shot follows from E[floor(10 beta) + 1]."""
    shapes = [
        meta_dataset.draw_shape(pool_of([20] * 60), settings=META, rng=generator_of("statistics", i))
        for i in range(3000)
    ]
    ways = np.array([len(shape.class_ids) for shape in shapes])
    assert ways.min() == 5 and ways.max() == 50
    assert ways.mean() == pytest.approx(27.5, abs=4 * 13.3 / math.sqrt(3000))
    asked = np.array([sum(shape.shots) / len(shape.shots) for shape in shapes])
    assert 3.5 < asked.mean() < 5.5  # E[|S|/N] = 5.5 before the floor per class takes away up to one, and the cap
    first = np.array([shape.class_ids[0] for shape in shapes])
    assert np.bincount(first - 100, minlength=60).min() > 20  # 50 expected for each class


def test_large_classes_give_large_supports() -> None:
    shapes = [meta_dataset.draw_shape(pool_of([1000] * 40), settings=META, rng=generator_of(i)) for i in range(400)]
    supports = np.array([sum(shape.shots) for shape in shapes])
    assert supports.max() <= 500 and 330 < supports.mean() < 480
    assert {shape.queries[0] for shape in shapes} == {10}


def test_two_levels_draw_inside_one_superclass_of_five_or_more() -> None:
    supers = ["small"] * 4 + ["latin"] * 6 + ["greek"] * 9
    seen = set()
    for i in range(60):
        shape = meta_dataset.draw_shape(pool_of([20] * 19, supers), settings=META, rng=generator_of("two", i))
        own = {supers[c - 100] for c in shape.class_ids}
        assert len(own) == 1 and len(shape.class_ids) >= 5
        seen |= own
    assert seen == {"latin", "greek"}


def test_too_few_classes_say_what_to_set() -> None:
    with pytest.raises(DataError, match=r"needs 5 classes.*finds 4.*set sampler to fixed"):
        meta_dataset.draw_shape(pool_of([9] * 4 + [1]), settings=META, rng=generator_of(0))
    with pytest.raises(DataError, match=r"3 of 4 classes have the 6 images.*set way to 3 or less"):
        fixed.draw_shape(pool_of([9, 9, 9, 5]), settings=EpisodeSettings(), rng=generator_of(0))
    with pytest.raises(DataError, match="1 of 1 classes"):
        fixed.draw_shape(pool_of([9]), settings=EpisodeSettings(clamp_way=True), rng=generator_of(0))


@pytest.mark.parametrize(("key", "value"), [("way", 1), ("shot", 0), ("query", 0), ("way", -3)])
def test_settings_say_what_to_set(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"set {key} to"):
        replace(EpisodeSettings(), **dict[str, Any]({key: value}))


def test_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'meta_dataset'"):
        EpisodeSettings(sampler="meta_datset")  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**32), length=st.integers(0, 300))
@settings(max_examples=50)
def test_permutation_is_one(seed: int, length: int) -> None:
    assert sorted(permutation(generator_of(seed), length).tolist()) == list(range(length))


def test_integer_reaches_both_ends() -> None:
    rng = generator_of("ends")
    assert {integer(rng, 3, 6) for _ in range(200)} == {3, 4, 5, 6}
