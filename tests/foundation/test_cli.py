"""The console door: light, and clear about what it does not know."""

import subprocess
import sys

import pytest

from tinytrain_dist.cli import VERBS, main
from tinytrain_dist.foundation.errors import ExitCode

HEAVY = ("torch", "ray", "wandb", "pyarrow", "duckdb", "scipy", "hydra")


def heavy_after(argv: list[str]) -> list[str]:
    """Return which heavy packages a fresh interpreter has loaded after running ``argv``."""
    code = (
        "import sys\nfrom tinytrain_dist.cli import main\n"
        f"code = main({argv!r})\n"
        f"print('HEAVY', code, *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    words = done.stdout.splitlines()[-1].split()
    assert words[:2] == ["HEAVY", "0"], done.stdout
    return words[2:]


@pytest.mark.parametrize("argv", [["--help"], [], ["--version"], ["backbones"], ["backbones", "mcunet", "--json"]])
def test_looking_imports_nothing_heavy(argv: list[str]) -> None:
    assert heavy_after(argv) == []


def test_help_names_every_verb_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    assert "example:" in out


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulat"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert "unknown verb 'simulat'; did you mean 'simulate'" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("verb", ["../cli", "os", "--verbose", "arguments", "simulate.x"])
def test_no_word_reaches_another_module(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == ExitCode.USAGE
    assert "unknown verb" in capsys.readouterr().err


def test_python_m_is_the_same_door() -> None:
    command = [sys.executable, "-m", "tinytrain_dist", "backbonez"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.USAGE
    assert "did you mean 'backbones'" in done.stderr
