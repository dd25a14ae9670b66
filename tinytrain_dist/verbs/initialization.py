"""``initialization`` and ``backbone.weights``: the checkpoint a simulation starts from, given or made first."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.backbones.card import read_card
from tinytrain_dist.backbones.shipped_weights import SHIPPED, shipped_files, shipped_path
from tinytrain_dist.backbones.weight_words import AUTO, META_TRAIN, PRETRAIN, RANDOM
from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.foundation.progress import say
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.settings_of import meta_train_settings, pretrain_settings

MADE: dict[str, str] = {"random": RANDOM, "pretrained": PRETRAIN, "meta_trained": META_TRAIN}
"""Initialization -> the value of ``backbone.weights`` that names no file but what makes it."""


def weights_word(config: JobConfig) -> str:
    """Return what ``backbone.weights`` amounts to: ``initialization``, where given, takes the place of a stage.

    With ``auto`` a stage is only asked for where the package has no such weights.
    """
    asked, word = config.initialization, config.backbone.weights
    if asked is None:
        return _best_at_hand(config.backbone.name) if word == AUTO else word
    if asked not in MADE:
        raise ConfigError(f"initialization: unknown {asked!r}; {nearest(asked, MADE)}")
    if word == AUTO and _is_shipped_as(asked, config.backbone.name):
        return SHIPPED
    return MADE[asked] if word in (AUTO, *MADE.values()) else word


def _is_shipped_as(initialization: str, backbone: str) -> bool:
    path = shipped_files().get(backbone)
    return path is not None and read_card(path).initialization == initialization


def _best_at_hand(backbone: str) -> str:
    return SHIPPED if backbone in shipped_files() else RANDOM


def given_weights(config: JobConfig) -> Path | None:
    """Return the checkpoint file the configuration names, ``None`` where it names a way to make one.

    Raises ``ConfigError`` where its card says another initialization than was asked for.
    """
    word = weights_word(config)
    if word in MADE.values():
        return None
    path = shipped_path(config.backbone.name) if word == SHIPPED else local_path(word, what="backbone.weights")
    if config.initialization is not None and (found := read_card(path).initialization) != config.initialization:
        raise ConfigError(
            f"initialization: found {config.initialization}, but backbone.weights={config.backbone.weights} is "
            f"{found}; leave initialization out, or name weights that are {config.initialization}"
        )
    return path


def check_stage(config: JobConfig) -> None:
    """Raise for what is wrong with the settings of the stage that makes the weights."""
    if weights_word(config) == PRETRAIN:
        pretrain_settings(config)
    elif weights_word(config) == META_TRAIN:
        meta_train_settings(config)


def initial_weights(config: JobConfig, *, root: str | Path, command: str) -> Path | None:
    """Return the checkpoint to start from, made (or reused) where that is asked for; ``None``: random weights."""
    word = weights_word(config)
    if word == RANDOM and config.backbone.weights == AUTO and config.initialization is None:
        say(f"no weights are shipped for backbone {config.backbone.name!r}: random ones are used")
    if word == SHIPPED and config.backbone.weights == AUTO and config.initialization is not None:
        say(
            f"initialization={config.initialization}: the package's weights of {config.backbone.name} are; "
            f"backbone.weights={MADE[config.initialization]} makes others first"
        )
    if word == PRETRAIN:
        from tinytrain_dist.verbs.pretrain import run_pretraining

        return run_pretraining(config, root=Path(root), command=command).weights_path
    if word == META_TRAIN:
        from tinytrain_dist.verbs.meta_train import run_meta_training

        return run_meta_training(config, root=Path(root), command=command).weights_path
    return given_weights(config)
