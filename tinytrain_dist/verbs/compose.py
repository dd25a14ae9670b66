"""``key=value`` words -> a checked ``JobConfig``, by Hydra; unknown keys name the nearest ones."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.foundation.paths import check_name, inside, local_path, resource_folder
from tinytrain_dist.foundation.redaction import redact, redact_text
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.foundation.strict_yaml import FORBIDDEN_KEYS, load_yaml
from tinytrain_dist.verbs.job_config import JobConfig

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser

_WORD = re.compile(r"([^=\s]+)=(.*)", re.DOTALL)
_IN_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def compose_job(words: list[str]) -> JobConfig:
    """Return the configuration that ``words`` ask for; raises ``ConfigError`` for anything unknown."""
    for word in words:
        _check_word(word)
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    parser = OverridesParser.create()
    for word in words:
        _check_value(word, parser)
    _register_schema()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(resource_folder("conf"))):
            found = compose(config_name="job", overrides=words)
        config = cast(JobConfig, OmegaConf.to_object(found))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"configuration: {' '.join(str(error.__cause__ or error).split())}") from error
    config.experiment = next((word.split("=", 1)[1] for word in words if word.startswith("experiment=")), None)
    return config


@functools.cache
def _register_schema() -> None:
    """Make the schema known to Hydra; once, since turning it into Hydra's own form takes a quarter of composing."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="job_schema", node=JobConfig)


def command_line(verb: str, words: list[str]) -> str:
    """Return the command as typed, without secrets: part of what a run says about itself."""
    return redact_text(shlex.join(["tinytrain", verb, *words]))


def _check_value(word: str, parser: OverridesParser) -> None:
    from hydra.errors import HydraException

    try:
        is_sweep = parser.parse_override(word).is_sweep_override()
    except HydraException as error:
        reason = " ".join(str(error.__cause__ or error).split()).partition(" See http")[0]
        raise ConfigError(f"{word!r}: {reason}; quote what has special characters: key='value'") from error
    if is_sweep:
        raise ConfigError(f"{word!r}: a job takes one value; a list is written key=[a,b]")


@functools.cache
def known_keys() -> frozenset[str]:
    """Return every key the command line may set, sections with a dot."""
    keys = {"experiment"}
    for section in dataclasses.fields(JobConfig):
        value = section.default_factory() if section.default_factory is not dataclasses.MISSING else None
        if dataclasses.is_dataclass(value):
            keys |= {f"{section.name}.{inner.name}" for inner in dataclasses.fields(value)}
        else:
            keys.add(section.name)
    return frozenset(keys)


def _check_word(word: str) -> None:
    if any(key in word for key in FORBIDDEN_KEYS):
        raise ConfigError(f"{word!r}: nothing is instantiated from a configuration; remove {sorted(FORBIDDEN_KEYS)}")
    match = _WORD.fullmatch(word)
    if match is None:
        raise ConfigError(f"unknown argument {word!r}: expected key=value, such as experiment=quickstart")
    key, value = match[1], match[2]
    if key not in known_keys():
        raise ConfigError(f"unknown key {key!r}; {nearest(key, known_keys())}")
    if key == "experiment":
        _check_experiment(value)


def _check_experiment(name: str) -> None:
    folder = resource_folder("conf") / "experiment"
    names = [path.stem for path in folder.glob("*.yaml")]
    if name not in names:
        raise ConfigError(f"unknown experiment {name!r}; {nearest(name, names)}")
    load_yaml(inside(folder, check_name(f"{name}.yaml", what="experiment"), what="experiment"))


def output_root(config: JobConfig) -> Path:
    """Return the local folder runs go to; absolute inside a job, whose working directory is a temporary copy."""
    _check_output(config)
    return local_path(config.run.root, what="run.root")


def output_location(config: JobConfig) -> str:
    """Return where runs go: an absolute path, or the URI of a folder in an object store."""
    _check_output(config)
    return open_storage(config.run.root).location


def _check_output(config: JobConfig) -> None:
    if config.run.id is not None:
        check_name(config.run.id, what="run.id")
    root = config.run.root
    if os.environ.get(_IN_RAY_JOB) and not (Path(root).is_absolute() or "://" in root):
        raise ConfigError(
            f"run.root: found {root!r}; inside a submitted Ray job only an absolute path is allowed, since the "
            f"working directory is a temporary copy"
        )


def config_document(config: JobConfig) -> dict[str, Any]:
    """Return the configuration as JSON values with secrets replaced."""
    document = redact(dataclasses.asdict(config))
    assert isinstance(document, dict)
    return document
