"""Checks one command of the documentation without doing its work: names of options, keys, files and targets.

``tinytrain`` commands go through the program's own parsers: whatever they refuse, the reader would be refused.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import REPOSITORY
from shell import Call

from tinytrain_dist.cli import VERBS, main
from tinytrain_dist.verbs import compose, key_values
from tinytrain_dist.verbs.arguments import VerbParser
from tinytrain_dist.verbs.job_config import JobConfig


class ComposedError(Exception):
    """Everything that could be checked without working has been checked."""


def compose_tinytrain(words: list[str]) -> None:
    """Parse ``tinytrain WORDS`` by the verb's own code and stop before it works."""
    assert words and (words[0] in VERBS or words[0].startswith("-")), f"unknown verb {words[:1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VerbParser, "parse", _then_stop(VerbParser.parse))
        if words[0] in VERBS:
            module = importlib.import_module(f"tinytrain_dist.verbs.{words[0].replace('-', '_')}")
            for name, real in (("compose_job", compose.compose_job), ("read_key_values", key_values.read_key_values)):
                if hasattr(module, name):
                    patch.setattr(module, name, _then_stop(real, check=_check_job if words[0] == "simulate" else None))
        try:
            code = main(words)
        except ComposedError:
            return
    assert code == 0, f"tinytrain {' '.join(words)}: exit code {code}"


def _then_stop(real: Callable[..., Any], *, check: Callable[[Any], None] | None = None) -> Callable[..., Any]:
    def stop(*args: Any, **options: Any) -> None:
        found = real(*args, **options)
        if check is not None:
            check(found)
        raise ComposedError

    return stop


def _check_job(config: JobConfig) -> None:
    """Check names, domains, devices and settings for real; weights that somebody has yet to make are left out."""
    from tinytrain_dist.verbs.simulate import checked_settings

    backbone = config.backbone
    if backbone.weights not in ("random", "pretrain", "meta_train") and not Path(backbone.weights).exists():
        config = replace(config, backbone=replace(backbone, weights="random"))
    checked_settings(config)


def compose_call(call: Call) -> None:
    """Check one call of any program."""
    program, *words = call.words
    CHECKS[program](words)


def _python(words: list[str]) -> None:
    if words[0] == "-m" and words[1].startswith(("benchmarks.", "tests.")):
        words = [f"{words[1].replace('.', '/')}.py", *words[2:]]
    elif words[0] == "-m":
        assert words[1] in ("tinytrain_dist", "venv", "pip", "pytest"), words
        _files_exist([word for word in words[2:] if word.startswith("tests/")])
        return
    script = REPOSITORY / words[0]
    assert script.is_file(), f"{words[0]} does not exist"
    if script.parent.name == "jobs":
        compose_tinytrain([script.stem.replace("_", "-"), *words[1:]])
    else:
        _options_stand_in(script, words[1:])


def _make(words: list[str]) -> None:
    text = (REPOSITORY / "Makefile").read_text()
    for target in words:
        assert "=" in target or re.search(rf"^{re.escape(target)}:", text, re.MULTILINE), f"make {target}: no target"


def _ray(words: list[str]) -> None:
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    own, _, job = " ".join(words).partition(" -- ")
    is_job = words[:2] == ["job", "submit"]
    source = Path(spec.origin).parent / ("dashboard/modules/job/cli.py" if words[0] == "job" else "scripts/scripts.py")
    name = words[1] if words[0] == "job" else words[0]
    text = source.read_text()
    assert f'"{name}"' in text or re.search(rf"^def {name.replace('-', '_')}\(", text, re.MULTILINE), f"ray {name}"
    _options_stand_in(source, own.split())
    _files_exist([word for word in own.split() if word.endswith(".yaml")])
    assert is_job == bool(job) or not is_job, "ray job submit needs -- and a command"
    if job:
        program, *rest = words[words.index("--") + 1 :]
        CHECKS[program](rest)


def _options_stand_in(source: Path, words: list[str]) -> None:
    text = source.read_text()
    for word in words:
        option = word.split("=", 1)[0]
        if option.startswith("--"):
            assert f'"{option}"' in text, f"{source.name} knows no option {option}"


def _pip(words: list[str]) -> None:
    text = (REPOSITORY / "pyproject.toml").read_text()
    _files_exist([words[number + 1] for number, word in enumerate(words) if word == "-c"])
    for extra in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        for name in extra.split(","):
            assert re.search(rf"^{name} = \[", text, re.MULTILINE), f"pip: no extra {name!r}"


def _kubectl(words: list[str]) -> None:
    names = [words[number + 1] for number, word in enumerate(words) if word == "-f"]
    _files_exist(names)
    assert all(list(yaml.safe_load_all((REPOSITORY / name).read_text())) for name in names)


def _docker(words: list[str]) -> None:
    if words[0] == "build":
        assert (REPOSITORY / "Dockerfile").is_file() and words[-1] == "."


def _files_exist(names: list[str]) -> None:
    for name in names:
        assert (REPOSITORY / name).exists(), f"{name} does not exist"


def _anything(words: list[str]) -> None:
    """Programs of others whose words nothing here can check."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "tinytrain": compose_tinytrain,
    "python": _python,
    "make": _make,
    "ray": _ray,
    "pip": _pip,
    "kubectl": _kubectl,
    "docker": _docker,
    "wandb": _anything,
    "git": _anything,
    "aws": _anything,
    "helm": _anything,
}
