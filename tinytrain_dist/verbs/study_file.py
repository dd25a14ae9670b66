"""``conf/study/<name>.yaml``: a named set of simulations and the analysis that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.foundation.paths import check_name, inside, resource_folder
from tinytrain_dist.foundation.strict_yaml import load_yaml
from tinytrain_dist.reporting.studies import ANALYSES

CHOOSE = "variants="
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class Variant(BaseModel):
    """One simulation of a study.

    Attributes
    ----------
    words
        ``key=value`` on top of the study's.
    given
        A key only the user can give: the variant runs where ``VARIANT:key=value`` was typed for it.
    """

    model_config = _STRICT

    words: list[str] = []
    given: str | None = None


class StudyFile(BaseModel):
    """A study as it is stored.

    Attributes
    ----------
    question
        What it answers, in one line.
    experiment
        Base of every variant: a name in ``conf/experiment``.
    words
        ``key=value`` on top of the experiment, for every variant.
    """

    model_config = _STRICT

    question: str
    analysis: str
    experiment: str | None = None
    words: list[str] = []
    variants: dict[str, Variant]


@dataclass(frozen=True)
class ChosenVariants:
    """What a study runs: variant -> all its words; and which variants were left out, with what would run them."""

    words: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str] = field(default_factory=dict)


def study_names() -> list[str]:
    """Return the names of the studies, sorted."""
    return sorted(path.stem for path in (resource_folder("conf") / "study").glob("*.yaml"))


def load_study(name: str) -> StudyFile:
    """Return the study called ``name``; raises ``ConfigError`` for an unknown or damaged one."""
    folder = resource_folder("conf") / "study"
    if name not in study_names():
        raise ConfigError(f"unknown study {name!r}; {nearest(name, study_names())}")
    path = inside(folder, check_name(f"{name}.yaml", what="study"), what="study")
    try:
        study = StudyFile.model_validate(load_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: key {key!r}: {first['msg']}") from error
    if study.analysis not in ANALYSES:
        raise ConfigError(f"{path}: unknown analysis {study.analysis!r}; {nearest(study.analysis, ANALYSES)}")
    for variant in study.variants:
        check_name(variant, what="variant")
    return study


def chosen_variants(study: StudyFile, words: Sequence[str]) -> ChosenVariants:
    """Return the words of every variant to run.

    ``words``: ``key=value`` for all, ``VARIANT:key=value`` for one, ``variants=[a,b]`` to run only some. What a variant
    itself sets is what it stands for: no word for all may change it.
    """
    asked = _parted(study, words)
    found: dict[str, tuple[str, ...]] = {}
    left_out: dict[str, str] = {}
    base = () if study.experiment is None else (f"experiment={study.experiment}",)
    for name, variant in study.variants.items():
        if asked.only is not None and name not in asked.only:
            continue
        own = asked.own[name]
        if variant.given is not None and not any(word.startswith(f"{variant.given}=") for word in own):
            left_out[name] = f"{name}:{variant.given}=..."
            continue
        _check_shared(asked.shared, variant, name)
        found[name] = (*base, *study.words, *asked.shared, *variant.words, *own)
    if left_out and (asked.only is not None or not found):
        raise ConfigError(f"variant {next(iter(left_out))!r} needs {next(iter(left_out.values()))}")
    return ChosenVariants(found, left_out)


@dataclass
class _Asked:
    """The user's words: for every variant, for one, and which to run (``None``: all that can)."""

    own: dict[str, list[str]]
    shared: list[str] = field(default_factory=list)
    only: tuple[str, ...] | None = None


def _parted(study: StudyFile, words: Sequence[str]) -> _Asked:
    asked = _Asked(own={name: [] for name in study.variants})
    for word in words:
        key = word.partition("=")[0]
        if word.startswith(CHOOSE):
            asked.only = _listed(word, study)
        elif key == "experiment":
            raise ConfigError(f"{word!r}: a study has its own experiment ({study.experiment}); change single keys")
        elif ":" in key:
            variant, _, rest = word.partition(":")
            asked.own[_known(variant, study)].append(rest)
        else:
            asked.shared.append(word)
    return asked


def _check_shared(shared: Sequence[str], variant: Variant, name: str) -> None:
    fixed = {word.partition("=")[0] for word in variant.words}
    for word in shared:
        key = word.partition("=")[0]
        if key in fixed:
            raise ConfigError(f"{word!r}: variant {name!r} sets {key} itself; give {name}:{word}, or leave {name} out")


def _listed(word: str, study: StudyFile) -> tuple[str, ...]:
    text = word.removeprefix(CHOOSE)
    names = tuple(name.strip() for name in text.strip("[]").split(",")) if text.startswith("[") else ()
    if not names or not text.endswith("]") or len(set(names)) != len(names):
        raise ConfigError(f"{word!r}: allowed: {CHOOSE}[a,b] of {', '.join(study.variants)}, none twice")
    return tuple(_known(name, study) for name in names)


def _known(variant: str, study: StudyFile) -> str:
    if variant not in study.variants:
        raise ConfigError(f"unknown variant {variant!r}; {nearest(variant, study.variants)}")
    return variant
