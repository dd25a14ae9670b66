"""Settings, schedule and slots: pure functions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.metatraining.schedule import learning_rate
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import round_slots, validation_slots


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("way", (1, 5)),
        ("shot", (3, 2)),
        ("num_episodes", 0),
        ("optimizer", "adm"),
        ("learning_rate", -1.0),
        ("warmup_share", 1.5),
        ("domains", ()),
        ("domains", (("emoji", 0.0),)),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("scale", float("inf")),
        ("gradient_clip", float("inf")),
        ("domains", (("emoji", float("inf")),)),
    ],
)
def test_settings_name_the_key_that_is_wrong(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"meta_train.{key}"):
        MetaTrainSettings(**{key: value})


def test_schedule_of_the_paper_in_small() -> None:
    rates = [learning_rate(r, num_rounds=10, peak=5e-5, final=1e-6, warmup_share=0.2) for r in range(10)]
    assert rates[0] == pytest.approx(1e-6 + 49e-6 / 3) and rates[1] == pytest.approx(1e-6 + 49e-6 * 2 / 3)
    assert rates[2] == pytest.approx(5e-5) and rates[9] == pytest.approx(1e-6)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_schedule_half_way_down_is_the_mean() -> None:
    assert learning_rate(5, num_rounds=11, peak=1.0, final=0.0) == pytest.approx(0.5)


@given(rounds=st.integers(1, 60), share=st.floats(0, 1), peak=st.floats(1e-6, 1.0), final=st.floats(0.0, 1e-6))
def test_schedule_stays_between_final_and_peak_and_reaches_the_peak(
    rounds: int, share: float, peak: float, final: float
) -> None:
    rates = [learning_rate(r, num_rounds=rounds, peak=peak, final=final, warmup_share=share) for r in range(rounds)]
    assert all(final - 1e-12 <= rate <= peak + 1e-12 for rate in rates)
    assert max(rates) == pytest.approx(peak)


def test_domains_get_their_share_of_every_round(tiny: MetaTrainSettings) -> None:
    settings = replace(tiny, domains=(("emoji", 3.0), ("icons", 1.0)), episodes_per_round=8)
    domains = {name: open_domain(name) for name in ("emoji", "icons")}
    for round_index in range(5):
        slots = round_slots(settings, domains, round_index)
        assert Counter(slot.spec.domain for slot in slots) == {"emoji": 6, "icons": 2}
        assert slots == round_slots(settings, domains, round_index)
        assert {slot.spec.split for slot in slots} == {"train"}


def test_no_episode_or_augmentation_comes_twice(tiny: MetaTrainSettings, data_root: str) -> None:
    domains = {"stripes": open_domain("stripes", roots=[data_root])}
    slots = [slot for r in range(6) for slot in round_slots(tiny, domains, r)]
    assert len({slot.spec.index for slot in slots}) == len({slot.augmentation_seed for slot in slots}) == len(slots)
    assert {slot.spec.settings.way for slot in slots} == {3, 4}


def test_validation_uses_held_out_classes_and_no_augmentation(tiny: MetaTrainSettings, data_root: str) -> None:
    slots = validation_slots(tiny, open_domain("stripes", roots=[data_root]), split="valid")
    assert len(slots) == 3
    assert all(slot.spec.split == "valid" and slot.augmentation_seed is None for slot in slots)
