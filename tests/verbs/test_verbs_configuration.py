"""Words -> configuration: defaults, types, the nearest names; and one document of what was asked, without secrets."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tinytrain_dist.adaptation import numerics
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.foundation.strict_yaml import FORBIDDEN_KEYS
from tinytrain_dist.verbs.compose import compose_job, config_document, known_keys, output_root
from tinytrain_dist.verbs.job_config import JobConfig
from tinytrain_dist.verbs.job_help import job_help
from tinytrain_dist.verbs.settings_of import executor_settings, simulation_settings, wandb_mode


def test_no_word_gives_the_defaults() -> None:
    assert compose_job([]) == JobConfig()


def test_words_set_what_they_name_and_nothing_else() -> None:
    config = compose_job(
        ["seed=3", "data.domains=[signs]", "run.id=mine", "finetune.scale=null", "budget.memory_bytes=1000"]
    )
    expected = JobConfig()
    expected.seed, expected.data.domains, expected.run.id, expected.budget.memory_bytes = 3, ["signs"], "mine", 1000
    assert config == expected
    settings = simulation_settings(config, weights=None)
    assert settings.seed == 3 and settings.domains == ("signs",) and settings.selection.memory_bytes == 1000


def test_every_default_is_accepted_by_the_floors() -> None:
    config = JobConfig()
    settings = simulation_settings(config, weights=None)
    assert config.finetune.numerics == "auto"
    assert replace(settings.finetune, curve_every=0) == type(settings.finetune)()
    assert settings.dispatch == type(settings.dispatch)() and settings.selection == type(settings.selection)()
    assert executor_settings(config.executor).kind == "ray" and wandb_mode(config) == "auto"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("simulation.trian=1", "unknown key 'simulation.trian'"),
        ("finetune.iteration=1", "unknown key 'finetune.iteration'; did you mean 'finetune.iterations'"),
        ("sed=1", "unknown key 'sed'; did you mean 'seed'"),
        ("+seed=1", "unknown key '+seed'; did you mean 'seed'"),
        ("~seed=1", "unknown key '~seed'"),
        ("hydra.run.dir=x", "unknown key 'hydra.run.dir'"),
        ("finetune={iterations: 1}", "unknown key 'finetune'"),
        ("experiment=nothing", "unknown experiment 'nothing'"),
        ("experiment=../job", "unknown experiment '../job'"),
        ("quickstart", "unknown argument 'quickstart': expected key=value"),
        ("--seed", "unknown argument '--seed': expected key=value"),
        ("=3", "unknown argument '=3'"),
        ("seed=one", "seed"),
        ("seed=1.5", "seed"),
        ("seed=", "seed"),
        ("seed=1,2", "'seed=1,2': a job takes one value; a list is written key=[a,b]"),
        ("data.domains=signs", "domains"),
        ("data.domains=[signs", "data.domains"),
        ("methods={none: 1}", "methods"),
        ("finetune.augment=maybe", "augment"),
        ("run.root=${no.such}", "no.such"),
    ],
)
def test_a_word_that_is_wrong_is_named(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_job([word])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(FORBIDDEN_KEYS))
@pytest.mark.parametrize("form", ["{}=os.system", "+data.{}=x", "data.roots=[{{{}: x}}]", "run.id={}"])
def test_nothing_is_instantiated_from_words(key: str, form: str) -> None:
    with pytest.raises(ConfigError, match="nothing is instantiated"):
        compose_job([form.format(key)])


def test_the_help_shows_every_key_and_an_example() -> None:
    text = job_help("simulate", "what it does")
    assert all(f"  {key}=" in text for key in known_keys() - {"experiment"})
    assert "tinytrain simulate experiment=quickstart" in text
    assert "meta_train." not in job_help("simulate", "", sections=("seed", "run"))


def test_secrets_are_in_no_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abcdef0123456789")
    config = compose_job(["wandb.group=abcdef0123456789", "run.id=plain"])
    text = json.dumps(config_document(config))
    assert "abcdef0123456789" not in text and "plain" in text
    assert set(config_document(config)) == set(asdict(JobConfig()))


def test_the_root_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert output_root(compose_job(["run.root=here"])) == tmp_path / "here"


def test_inside_a_ray_job_a_relative_root_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match=r"run\.root: found 'runs'; inside a submitted Ray job only an absolute path"):
        output_root(compose_job([]))
    assert output_root(compose_job([f"run.root={tmp_path}"])) == tmp_path
    assert output_root(compose_job([f"run.root=file://{tmp_path}"])) == tmp_path


@pytest.mark.parametrize(
    ("words", "has_units", "expected"),
    [
        (["finetune.mode=fast"], True, "bf16"),
        (["finetune.mode=fast"], False, "fp32"),
        (["finetune.mode=fast", "finetune.numerics=fp32"], True, "fp32"),
        (["finetune.mode=fast", "finetune.numerics=bf16"], False, "bf16"),
        ([], True, "fp32"),
    ],
)
def test_the_arithmetic_is_decided_once_by_the_cpu_that_starts_the_run(
    words: list[str], has_units: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numerics, "capabilities", lambda: frozenset({"amx_bf16"} if has_units else ()))
    assert simulation_settings(compose_job(words), weights=None).finetune.numerics == expected


@pytest.mark.parametrize(("has", "expected"), [(True, "bf16"), (False, "fp32")])
def test_on_a_gpu_the_arithmetic_is_decided_by_the_gpu(
    has: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numerics, "capabilities", lambda: frozenset(() if has else {"amx_bf16"}))
    monkeypatch.setattr(numerics, "gpu_has_bf16", lambda: has)
    finetune = simulation_settings(compose_job(["finetune.mode=fast", "finetune.device=cuda"]), weights=None).finetune
    assert (finetune.device, finetune.numerics) == ("cuda", expected)


@pytest.mark.parametrize("words", [["finetune.numerics=bf61"], ["finetune.numerics=bf16"]])
def test_an_arithmetic_that_cannot_be(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"finetune.numerics: found 'bf(61'; allowed: auto|16'; allowed: fp32, in)"):
        simulation_settings(compose_job(words), weights=None)
