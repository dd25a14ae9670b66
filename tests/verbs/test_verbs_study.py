"""``tinytrain study`` in this process: its variants, its tables, resuming, and what is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_job import SERIAL, TINY

from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import save_checkpoint
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.verbs.compose import compose_job
from tinytrain_dist.verbs.study_file import chosen_variants, load_study, study_names

SMALL = tuple(w for w in TINY if not w.startswith(("methods", "devices", "backbone.name", "episodes.num_tasks")))
NET = "backbone.name=mobilenet_v2_w0.1"
COMMON = (*SMALL, SERIAL, "episodes.num_tasks=2", "selection.inspect_blocks=2", "finetune.learning_rate=0.1")
TINY_STUDIES: dict[str, tuple[str, ...]] = {
    "main_table": (
        "mcunet:" + NET,
        "methods=[raw_pixels,none,last_layer,tinytrain]",
        "devices.names=[stm32f746,jetson_nano]",
    ),
    "criteria": (
        NET,
        "devices.names=[jetson_nano]",
        "budget.memory_bytes=75000",
        "variants=[full,random,channels_random]",
    ),
    "fisher_rank": (
        NET,
        "methods=[layer_alone_51,layer_alone_50,layer_alone_49,layer_alone_48,"
        + ",".join(f"layer_alone_{i}_{q}" for i in (49, 51) for q in ("top", "second", "third", "bottom"))
        + "]",
    ),
    "initialization": (
        NET,
        "methods=[none,last_layer]",
        "devices.names=[jetson_nano]",
    ),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Run a tiny study once; return its folder."""
    root = tmp_path_factory.mktemp("studies")

    weights = root / "other.safetensors"
    card = CheckpointCard(initialization="pretrained", resolution=32)
    save_checkpoint(weights, build_backbone("mobilenet_v2_w0.1", seed=1), card)

    def folder(name: str) -> Path:
        given = [f"pretrained:backbone.weights={weights}"] if name == "initialization" else []
        if not (root / f"study-{name}").exists():
            assert main(["study", name, *COMMON, *TINY_STUDIES[name], *given, f"run.root={root}"]) == ExitCode.DONE
        return root / f"study-{name}"

    return folder


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "study.json").read_text())
    return found


def table(folder: Path, words: str) -> dict[str, dict[str, Any]]:
    """Return the rows of the one table whose title holds ``words``: first cell -> column -> cell."""
    (found,) = [t for t in document(folder)["tables"] if words in t["title"]]
    return {row[0]: dict(zip(found["columns"], row, strict=True)) for row in found["rows"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["main_table", "fisher_rank"])
def test_a_study_writes_its_tables_and_its_second_run_only_reads(
    name: str, done: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = done(name)
    files = [folder / "study.md", folder / "study.json"]
    before = [path.read_bytes() for path in files]
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("shards/*")}
    assert stamps and set(document(folder)["runs"]) <= {p.name for p in folder.iterdir()}
    capsys.readouterr()
    assert main(["study", name, *COMMON, *TINY_STUDIES[name], f"run.root={folder.parent}"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert "were there already; nothing was computed again" in err and "tasks computed" not in err
    assert [path.read_bytes() for path in files] == before
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("shards/*")} == stamps
    assert (folder / "study.md").read_text() in out and err.splitlines()[-1] == "exit code 0: done"


@pytest.mark.slow
def test_the_main_table_pairs_every_method_with_none_and_with_tinytrain(done: Callable[[str], Path]) -> None:
    folder = done("main_table")
    accuracies, gains = table(folder, "accuracy, per cent"), table(folder, "gain over none")
    lines = [name for name in accuracies if name.startswith("tinytrain")]
    assert lines and {"raw_pixels", "none", "last_layer"} <= set(accuracies)
    assert accuracies["none"]["tasks"] == 4 and accuracies["none"]["signs"]["num"] == 2
    for name, row in gains.items():
        expected = accuracies[name]["all"]["mean"] - accuracies["none"]["all"]["mean"]
        assert row["all"]["mean"] == pytest.approx(expected) and row["all"]["low"] <= row["all"]["mean"]
        assert row["all"]["unit"] == "points"
    for line in lines:
        versus = table(folder, f"{line} minus each method")
        expected = accuracies[line]["all"]["mean"] - accuracies["last_layer"]["all"]["mean"]
        assert versus["last_layer"]["all"]["mean"] == pytest.approx(expected)
    assert any(note.startswith("left out: mobilenet_v2; give") for note in document(folder)["notes"])


@pytest.mark.slow
def test_criteria_are_compared_at_one_budget_on_the_same_tasks(done: Callable[[str], Path]) -> None:
    folder = done("criteria")
    rows, gaps = table(folder, "by criterion"), table(folder, "Minus full")
    assert list(rows) == ["full", "random", "channels_random"]
    assert rows["full"]["minus full, points"] == "reference"
    for name, row in rows.items():
        if name != "full":
            expected = row["accuracy %"]["mean"] - rows["full"]["accuracy %"]["mean"]
            assert row["minus full, points"]["mean"] == pytest.approx(expected) == gaps[name]["all"]["mean"]
        assert 0 < row["memory, bytes"] <= 75000 and row["infeasible"] == 0 and row["tasks"] == 4
    notes = document(folder)["notes"]
    assert any(n.startswith("budget of every run: 75,000 bytes") for n in notes)
    assert any(row["minus full, points"]["mean"] != 0 for name, row in rows.items() if name != "full")


@pytest.mark.slow
def test_fisher_rank_correlates_per_task(done: Callable[[str], Path]) -> None:
    folder = done("fisher_rank")
    layers, groups = table(folder, "score of a layer"), table(folder, "potential of a channel group")
    quarters = table(folder, "gain of a quarter")
    for row in [*layers.values(), *groups.values()]:
        found = row["all"]
        assert found["unit"] == "correlation" and (found["mean"] is None or -1 <= found["mean"] <= 1)
    assert layers["Fisher potential"]["tasks"] >= 1
    top, bottom = quarters["top"]["all"]["mean"], quarters["bottom"]["all"]["mean"]
    assert quarters["top minus bottom, paired"]["all"]["mean"] == pytest.approx(top - bottom)
    assert set(table(folder, "layer by layer")) == {"48", "49", "50", "51"}


@pytest.mark.slow
def test_initializations_stand_side_by_side(done: Callable[[str], Path]) -> None:
    folder = done("initialization")
    rows, steps = table(folder, "Accuracy by initialization"), table(folder, "adds")
    assert set(rows) == {"none", "last_layer"} and set(rows["none"]) == {"method", "random", "pretrained"}
    for name, row in rows.items():
        expected = row["pretrained"]["mean"] - row["random"]["mean"]
        assert steps[name]["pretrained minus random"]["mean"] == pytest.approx(expected)
    assert rows["none"]["random"]["mean"] != rows["none"]["pretrained"]["mean"]
    assert any("mobilenet_v2_w0.1, pretrained (" in note for note in document(folder)["notes"])


@pytest.mark.slow
def test_every_shipped_study_composes() -> None:
    assert study_names() == sorted(TINY_STUDIES)
    for name in study_names():
        study = load_study(name)
        own = [f"{variant}:{v.given}=random" for variant, v in study.variants.items() if v.given]
        chosen = chosen_variants(study, own)
        assert list(chosen.words) == list(study.variants) and not chosen.left_out
        for words in chosen.words.values():
            assert compose_job(list(words)).experiment == study.experiment


def test_words_for_all_words_for_one_and_only_some() -> None:
    study = load_study("initialization")
    chosen = chosen_variants(study, ["seed=3", "pretrained:backbone.weights=a", "pretrained:seed=4"])
    assert chosen.words == {
        "random": ("experiment=paper_table", "seed=3", "backbone.weights=random"),
        "pretrained": ("experiment=paper_table", "seed=3", "backbone.weights=a", "seed=4"),
    }
    assert chosen.left_out == {"meta_trained": "meta_trained:backbone.weights=..."}
    assert list(chosen_variants(load_study("criteria"), ["variants=[full,random]"]).words) == ["full", "random"]
    assert compose_job(list(chosen.words["pretrained"])).seed == 4, "the last word counts"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["variants=[fulll]"], "unknown variant 'fulll'; did you mean 'full'"),
        (["variants=[full,full]"], "none twice"),
        (["variants=full"], "allowed: variants=[a,b]"),
        (["randm:seed=1"], "unknown variant 'randm'; did you mean 'random'"),
        (["experiment=quickstart"], "a study has its own experiment (criteria)"),
        (["selection.criterion=random"], "variant 'full' sets selection.criterion itself"),
    ],
)
def test_wrong_words_are_named(words: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen_variants(load_study("criteria"), words)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "name one of criteria, fisher_rank"),
        (["seed=1"], "name one of"),
        (["criterion"], "unknown study 'criterion'; did you mean 'criteria'"),
        (["../experiment/criteria"], "unknown study"),
        (["criteria", "finetune.iteration=3"], "did you mean 'finetune.iterations'"),
        (["criteria", "run.force_new=true"], "set run.id=NAME to start another"),
        (["criteria", "random:methods=[tinytrian]"], "did you mean 'tinytrain'"),
        (["initialization", "variants=[random,meta_trained]"], "needs meta_trained:backbone.weights="),
        (["fisher_rank", NET], "'layer_alone_27_top': Fisher information ranks the channels of layers"),
    ],
)
def test_mistakes_are_said_before_anything_runs(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = [f"run.root={tmp_path / 'runs'}"] if words and "=" not in words[0] else []
    assert main(["study", *words, *root]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert expected in err and "Traceback" not in err and out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_another_identity_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "initialization", *COMMON, NET, "methods=[raw_pixels]", f"run.root={tmp_path}"]
    assert main(words) == ExitCode.DONE
    assert main([*words, "finetune.iterations=3"]) == ExitCode.LOCKED
    assert "finetune.iterations: 2 there, 3 asked" in capsys.readouterr().err
    assert main([*words, "finetune.iterations=3", "run.id=other"]) == ExitCode.DONE
    assert (tmp_path / "other" / "study.md").exists()


def test_the_help_names_every_study_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--help"]) == ExitCode.DONE
    out = capsys.readouterr().out
    assert all(f"  {name}: {load_study(name).question}" in out for name in study_names())
    assert "example:\n  tinytrain study criteria" in out
