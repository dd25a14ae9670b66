"""Settings say which key is wrong, what was found and what is allowed."""

import dataclasses
import math

import pytest

from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.foundation.errors import ConfigError


@pytest.mark.parametrize(
    "key, value, allowed",
    [
        ("iterations", -1, "0 or more"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", math.nan, "above 0"),
        ("learning_rate", 10.0, "below 10"),
        ("optimizer", "adamw", "adam, sgd"),
        ("distance", "cosinus", "did you mean 'cosine'?"),
        ("momentum", 1.0, "0 to below 1"),
        ("scale", 0.0, "above 0, or null"),
        ("scale", math.inf, "above 0, or null"),
    ],
)
def test_fine_tuning_settings_outside_their_range(key: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FineTuneSettings(**{key: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"finetune.{key}: found {value!r}; allowed: ")
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    "key, value, allowed",
    [
        ("selection.inspect_blocks", 0, "1 or more"),
        ("selection.channel_ratio", 0.0, "above 0, up to 1"),
        ("selection.channel_ratio", 1.01, "above 0, up to 1"),
        ("selection.channel_ratio", math.nan, "above 0, up to 1"),
        ("selection.side", "both", "output, input"),
        ("selection.on_overflow", "halt", "skip, stop"),
        ("budget.compute_share", 0.0, "above 0, up to 1"),
        ("budget.compute_share", -0.1, "above 0, up to 1"),
        ("budget.memory_bytes", 0, "bytes above 0, without a unit, or null"),
        ("budget.memory_bytes", "1MB", "bytes above 0, without a unit"),
        ("selection.channel_criterion", "fishr", "did you mean 'fisher'?"),
        ("selection.fisher_point", "before", "after_activation, before_activation"),
        ("selection.channel_ratio", "most", "above 0, up to 1, or auto"),
        ("budget.memory_bytes", -1, "bytes above 0, without a unit, or null"),
    ],
)
def test_selection_settings_outside_their_range(key: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SelectionSettings(**{key.split(".")[1]: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{key}: found {value!r}; allowed: ")
    assert allowed in str(caught.value)


def test_the_defaults_are_what_was_decided() -> None:
    tuning, selection = FineTuneSettings(), SelectionSettings()
    assert (tuning.iterations, tuning.optimizer, tuning.scale, tuning.augment) == (40, "adam", None, True)
    assert (selection.criterion, selection.inspect_blocks, selection.channel_ratio) == ("full", 6, 0.5)
    assert (selection.side, selection.on_overflow, selection.compute_share) == ("output", "skip", 0.15)
    assert selection.memory_bytes is None


def test_settings_are_frozen_and_hashable() -> None:
    assert hash(FineTuneSettings()) == hash(FineTuneSettings())
    with pytest.raises(dataclasses.FrozenInstanceError):
        SelectionSettings().side = "input"  # type: ignore[misc]
