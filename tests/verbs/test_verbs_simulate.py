"""The simulate job in this process: what it prints, what it leaves, how it answers the second time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_job import SERIAL, TINY, document

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.simulation.lock import run_lock


def simulate(root: Path, *words: str) -> int:
    return main(["simulate", *TINY, SERIAL, f"run.root={root}", "run.id=mine", "episodes.num_tasks=1", *words])


def test_the_job_prints_the_table_and_leaves_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(tmp_path) == ExitCode.DONE
    first = capsys.readouterr()
    assert all(word in first.out for word in ("stm32f746", "tinytrain", "report.html", "fits %"))
    assert "mine: 2 tasks computed, 0 reused, 0 failed" in first.err
    assert first.err.splitlines()[-1] == "exit code 0: done"
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    assert {"run.json", "tasks.parquet", "shards", "manifest.json", "results", "plans", "fisher"} <= names
    assert {"failures.parquet", "report.html", "_SUCCESS"} <= names and "lock.json" not in names
    assert document(tmp_path / "mine")["config"]["episodes"]["num_tasks"] == 1

    assert simulate(tmp_path) == ExitCode.DONE
    second = capsys.readouterr()
    assert "mine: all 2 tasks were there already; nothing was computed again" in second.err
    assert second.out == first.out


def test_a_held_run_names_its_holder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    with run_lock(tmp_path / "mine"):
        assert simulate(tmp_path) == ExitCode.LOCKED
    err = capsys.readouterr().err
    assert "held by process" in err and "Traceback" not in err
    assert err.splitlines()[-1] == "exit code 4: run locked or incompatible"


@pytest.mark.slow
def test_a_changed_identity_lists_its_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(tmp_path, "methods=[raw_pixels]") == ExitCode.DONE
    assert simulate(tmp_path, "methods=[raw_pixels]", "seed=7", "finetune.learning_rate=0.01") == ExitCode.LOCKED
    err = capsys.readouterr().err
    assert "seed: 0 there, 7 asked" in err and "finetune.learning_rate: 0.001 there, 0.01 asked" in err
    assert simulate(tmp_path, "methods=[raw_pixels]", "seed=7", "run.force_new=true") == ExitCode.DONE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine-2"]


@pytest.mark.parametrize("verb", ["simulate"])
def test_help_ends_well_and_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert f"example:\n  tinytrain {verb} experiment=quickstart" in out and err == ""
