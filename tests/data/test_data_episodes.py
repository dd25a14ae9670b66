"""Episodes are pure functions of their spec, and never hold an image twice."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.data.episodes import (
    EpisodeIndices,
    EpisodeSettings,
    EpisodeSpec,
    check_episodes,
    draw_episode,
    load_episode,
)
from tinytrain_dist.foundation.errors import DataError
from tinytrain_dist.foundation.hashing import bytes_hash

FIXED = EpisodeSettings(way=5, shot=5, query=10)
META = EpisodeSettings(sampler="meta_dataset")


def spec_of(name: str, *, index: int, asked: EpisodeSettings = META, seed: int = 0) -> EpisodeSpec:
    return EpisodeSpec.of(open_domain(name), split="all", settings=asked, seed=seed, index=index)


def all_images(drawn: EpisodeIndices) -> list[int]:
    return [int(i) for i in np.concatenate([*drawn.support, *drawn.query])]


@given(
    name=st.sampled_from(["signs", "glyphs", "flags", "fashion"]),
    asked=st.sampled_from([FIXED, META, EpisodeSettings(way=20, shot=1, query=3, clamp_way=True)]),
    seed=st.integers(0, 5),
    index=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_laws_on_the_bundled_domains(name: str, asked: EpisodeSettings, seed: int, index: int) -> None:
    domain = open_domain(name)
    spec = spec_of(name, index=index, asked=asked, seed=seed)
    drawn, again = draw_episode(domain, spec), draw_episode(domain, spec)
    images = all_images(drawn)
    assert images == all_images(again) and drawn.class_ids == again.class_ids
    assert len(set(images)) == len(images)
    for class_id, support, query in zip(drawn.class_ids, drawn.support, drawn.query, strict=True):
        assert len(support) >= 1 and len(query) >= 1
        assert set(domain.labels[support]) == set(domain.labels[query]) == {class_id}
    assert images != all_images(draw_episode(domain, dataclasses.replace(spec, index=index + 1)))
    assert images != all_images(draw_episode(domain, dataclasses.replace(spec, seed=seed + 100)))


def test_draws_do_not_depend_on_clamp_where_it_does_nothing() -> None:
    domain = open_domain("signs")
    clamped = dataclasses.replace(FIXED, clamp_way=True)
    one = draw_episode(domain, spec_of("signs", index=3, asked=FIXED))
    two = draw_episode(domain, spec_of("signs", index=3, asked=clamped))
    assert all_images(one) == all_images(two)


def test_two_level_domain_stays_inside_a_script() -> None:
    domain = open_domain("glyphs")
    assert domain.superclasses is not None
    for index in range(20):
        drawn = draw_episode(domain, spec_of("glyphs", index=index))
        assert len({domain.superclasses[c] for c in drawn.class_ids}) == 1


def test_a_known_draw() -> None:
    """Guards published results: a change of the draw must be deliberate and raise RESULT_VERSION."""
    assert open_domain("signs").content_hash == "939df17b4e288057"
    digest = [
        bytes_hash(
            np.array(all_images(draw_episode(open_domain("signs"), spec_of("signs", index=7, asked=a)))).tobytes()
        )
        for a in (FIXED, META)
    ]
    assert [d[:12] for d in digest] == ["1372b9134f34", "8cbda4265f12"]


def test_another_process_draws_and_loads_the_same() -> None:
    code = (
        "from tinytrain_dist.data.domain import open_domain; from tinytrain_dist.data.episodes import *\n"
        "from tinytrain_dist.foundation.hashing import bytes_hash\n"
        "d = open_domain('fashion'); d.images(__import__('numpy').arange(40), resolution=32)\n"
        "s = EpisodeSpec.of(d, split='test', settings=EpisodeSettings(), seed=1, index=2)\n"
        "print(bytes_hash(load_episode(d, s, resolution=32).support_images.tobytes()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    domain = open_domain("fashion")
    spec = EpisodeSpec.of(domain, split="test", settings=EpisodeSettings(), seed=1, index=2)
    assert out == bytes_hash(load_episode(domain, spec, resolution=32).support_images.tobytes())


def test_load_episode_shapes_and_labels() -> None:
    domain = open_domain("flags")
    episode = load_episode(domain, spec_of("flags", index=0, asked=FIXED), resolution=48)
    assert episode.support_images.shape == (25, 3, 48, 48) and episode.support_images.dtype == np.uint8
    assert episode.query_images.shape == (len(episode.query_labels), 3, 48, 48)
    assert episode.support_labels.tolist() == [c for c in range(5) for _ in range(5)]
    assert set(episode.query_labels.tolist()) == set(range(5)) and episode.shots == (5,) * 5


def test_another_content_is_refused() -> None:
    spec = dataclasses.replace(spec_of("signs", index=0), domain_hash="0" * 16)
    with pytest.raises(DataError, match="was made for 0000"):
        draw_episode(open_domain("signs"), spec)


def test_task_ids_are_distinct_and_readable() -> None:
    specs = [spec_of("signs", index=i, asked=a, seed=s) for i in range(3) for a in (FIXED, META) for s in (0, 1)]
    assert len({spec.task_id for spec in specs}) == len(specs)
    assert specs[0].task_id == "signs/all/fixed-5w5s10q/s0/0"


def test_check_episodes_names_the_counts() -> None:
    check_episodes(open_domain("signs"), split="test", settings=META)
    with pytest.raises(
        DataError, match="'signs', split train: no classes; classes per split: train 0, valid 0, test 100"
    ):
        check_episodes(open_domain("signs"), split="train", settings=FIXED)
    with pytest.raises(DataError, match=r"10 of 10 classes.*set way to 10 or less"):
        check_episodes(open_domain("fashion"), split="test", settings=EpisodeSettings(way=20))
