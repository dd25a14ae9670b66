"""``tinytrain search-static`` and what a simulation does with its scheme; the chosen learning rate in ``run.json``."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_job import SERIAL, TINY, document

from tinytrain_dist.cli import main
from tinytrain_dist.costs.schemes import SHIPPED
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.paths import resource_folder
from tinytrain_dist.foundation.strict_yaml import load_yaml
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.simulation import scheme_scores
from tinytrain_dist.verbs.compose import compose_job
from tinytrain_dist.verbs.settings_of import simulation_settings

SEARCH = (
    "search-static", "--backbone", "mobilenet_v2_w0.1", "--weights", "random", "--budget-compute-share", "0.05",
    "--generations", "1", "--population", "2", "--tasks", "1", "--iterations", "1", "--resolution", "32",
    "--way", "3", "--shot", "1", "--query", "2", "--executor", "serial",
)  # fmt: skip


@pytest.mark.slow
def test_the_found_scheme_is_used_by_sparse_update(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.yaml"
    assert main([*SEARCH, "--budget-memory-bytes", "1000000", "--out", str(out), "--json"]) == ExitCode.DONE
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["file"] == str(out) and found["memory_bytes"] <= 1_000_000
    assert found["search"]["command"].startswith("tinytrain search-static --backbone mobilenet_v2_w0.1")
    assert captured.err.splitlines()[-1] == "exit code 0: done"
    assert main([*SEARCH, "--budget-memory-bytes", "1000000", "--out", str(out)]) == ExitCode.DONE  # scores are there
    shown, search = capsys.readouterr().out, found["search"]
    for words, name in {
        "tasks of the evolution": "accuracy",
        "validation, by which it was chosen": "validation_accuracy",
        "held out, by which nothing was chosen": "held_out_accuracy",
    }.items():
        before, after = search[f"{name}_before"], search[name]
        assert f"  {words}: {100 * before:.1f} %, {100 * after:.1f} %\n" in shown

    words = [*TINY, SERIAL, f"run.root={tmp_path}", "run.id=mine", "episodes.num_tasks=1", "methods=[sparse_update]"]
    assert main(["simulate", *words, f"selection.scheme={out}"]) == ExitCode.DONE
    rows = pq.read_table(tmp_path / "mine" / "results").to_pylist()
    layers = sorted(int(layer) for layer in found["input_shares"])
    assert {row["plan_status"] for row in rows} == {"ok"}
    assert all(row["plan_layers"] == layers and row["updated_weights"] == found["updated_weights"] for row in rows)
    capsys.readouterr()
    assert main(["simulate", *words]) == ExitCode.LOCKED
    assert "selection.scheme" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["1MB", "0", "-5", "1e6", "1.5", "", "²"])
def test_a_budget_is_a_number_of_bytes(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--budget-memory-bytes={value}", "--out", str(tmp_path / "found.yaml")]
    assert main([*SEARCH, *words]) == ExitCode.USAGE
    assert (
        f"--budget-memory-bytes: found {value!r}; allowed: a whole number of bytes above 0" in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--backbone", "mcunett"], "did you mean 'mcunet'"),
        (["--budget-compute-share", "0"], "--budget-compute-share: found 0.0"),
        (["--budget-compute-share", "15%"], "argument --budget-compute-share: invalid float value: '15%'"),
        (["--generations", "0"], "--generations: found 0"),
        (["--tasks", "0"], "--tasks: found 0"),
        (["--iterations", "0"], "--iterations: found 0; allowed: 1 or more"),
        (["--learning-rate", "nan"], "--learning-rate: found nan; allowed: above 0, below 10"),
        (["--weights", "shipped", "--backbone", "mcunett"], "did you mean 'mcunet'"),
        (["--weights", "shipped"], "no weights are shipped for backbone 'mobilenet_v2_w0.1'"),
        (["--executor", "rya"], "did you mean 'ray'"),
        (["--generation", "1"], "did you mean '--generations'"),
        (["--budget-memory-bytes", "1000"], "no layer of mobilenet_v2_w0.1 fits the budget of 1000 bytes"),
    ],
)
def test_bad_options_are_refused(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--budget-memory-bytes", "1000000", "--out", str(tmp_path / "found.yaml")]
    assert main([*SEARCH, *out, *words]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert expected in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_a_scheme_is_searched_on_trained_weights_unless_random_ones_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = SEARCH.index("--weights")
    words = [
        *SEARCH[:place],
        *SEARCH[place + 2 :],
        "--budget-memory-bytes",
        "1000000",
        "--out",
        str(tmp_path / "x.yaml"),
    ]
    assert main(words) == ExitCode.USAGE
    assert "no weights are shipped for backbone 'mobilenet_v2_w0.1'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "notes", "scheme of another network"])
def test_nothing_but_an_earlier_scheme_is_overwritten(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.yaml"
    if kind == "folder":
        out.mkdir()
    else:
        out.write_bytes(b"my notes" if kind == "notes" else (SHIPPED / "mcunet--mcunetv3.yaml").read_bytes())
    before = None if kind == "folder" else out.read_bytes()
    assert main([*SEARCH, "--budget-memory-bytes", "1000000", "--out", str(out)]) == ExitCode.USAGE
    assert "found.yaml', which is no static scheme of mobilenet_v2_w0.1; allowed: a new file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [out] and (before is None or out.read_bytes() == before)


def test_a_place_that_cannot_be_written_is_said_before_anything_is_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scheme_scores.SchemeScores, "mean", None)  # would raise
    (tmp_path / "file").touch()
    out = ["--budget-memory-bytes", "1000000", "--out", str(tmp_path / "file" / "found.yaml")]
    assert main([*SEARCH, *out]) == ExitCode.STORAGE
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_the_chosen_rate_and_its_table_stand_in_the_run_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, SERIAL, f"run.root={tmp_path}", "run.id=mine", "episodes.num_tasks=1", "methods=[last_layer]"]
    auto = ["finetune.learning_rate=auto", "rate_search.rates=[0.001,0.1]", "rate_search.num_tasks=1"]
    assert main(["simulate", *words, *auto]) == ExitCode.DONE
    run = document(tmp_path / "mine")
    found = run["learning_rate_search"]
    assert run["config"]["finetune"]["learning_rate"] == "auto"
    assert run["identity"]["finetune"]["learning_rate"] == found["rate"] in (0.001, 0.1)
    assert set(found["table"]["last_layer"]) == {"0.001", "0.1"}
    assert (found["split"], found["grid"]["domains"]) == ("valid", ["emoji", "icons"])
    assert "best on valid classes of emoji and icons" in capsys.readouterr().err

    assert main(["simulate", *words, *auto]) == ExitCode.DONE
    assert "mine: all 2 tasks were there already" in capsys.readouterr().err
    assert document(tmp_path / "mine")["learning_rate_search"] == found
    assert main(["simulate", *words, f"finetune.learning_rate={found['rate']}"]) == ExitCode.DONE, "one identity"


@pytest.mark.parametrize("name", sorted(p.stem for p in (resource_folder("conf") / "experiment").glob("*.yaml")))
def test_every_experiment_composes(name: str) -> None:
    config = compose_job([f"experiment={name}"])
    settings = simulation_settings(config, weights=None)
    assert layer_graph(settings.backbone, settings.resolution)
    asked = load_yaml(resource_folder("conf") / "experiment" / f"{name}.yaml")
    assert "methods" in asked or "meta_train" in asked or "pretrain" in asked  # a simulation's or a training's
    assert set(asked.get("methods", settings.methods)) == set(settings.methods)
