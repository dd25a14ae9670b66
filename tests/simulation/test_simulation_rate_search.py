"""``finetune.learning_rate: auto``: chosen on validation classes, deterministic, cached, never on what is tested."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_simulation import SERIAL, rows_of, run, tiny_settings

from tinytrain_dist.adaptation.settings import SelectionSettings
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.simulation import rate_search
from tinytrain_dist.simulation.rate_search import FOLDER, RateChoice, RateGrid, search_rate
from tinytrain_dist.simulation.settings import SimulationSettings

GRID = RateGrid(rates=(1e-3, 3e-2), num_tasks=1, domains=("emoji", "icons"))


def search(root: Path, settings: SimulationSettings | None = None, grid: RateGrid = GRID) -> RateChoice:
    return search_rate(settings or tiny_settings(), grid, root=root, executor=SERIAL)


def test_the_best_mean_over_methods_is_chosen_and_the_table_says_why(tmp_path: Path) -> None:
    choice = search(tmp_path)
    assert set(choice.table) == {"last_layer", "tinytrain"}, "raw_pixels and none train nothing"
    for method, row in choice.table.items():
        for rate, accuracy in row.items():
            rows = [r for r in rows_of(tmp_path / FOLDER / choice.runs[rate]) if r["method"] == method]
            assert {(r["domain"], r["split"]) for r in rows} == {("emoji", "valid"), ("icons", "valid")}
            assert accuracy == pytest.approx(sum(r["accuracy_after"] for r in rows) / len(rows))
    for rate, score in choice.scores.items():
        assert score == pytest.approx(sum(row[rate] for row in choice.table.values()) / 2)
    assert choice.scores[f"{choice.rate:g}"] == max(choice.scores.values())


@pytest.mark.slow
def test_a_second_search_computes_nothing_and_a_larger_one_only_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    simulate = rate_search.simulate

    def watched(*args: object, **options: object) -> object:
        result = simulate(*args, **options)  # type: ignore[arg-type]
        computed.append(result.computed)
        return result

    monkeypatch.setattr(rate_search, "simulate", watched)
    first = search(tmp_path)
    assert search(tmp_path) == first
    wider = RateGrid(rates=(1e-3, 1e-2, 3e-2), num_tasks=1, domains=GRID.domains)
    search(tmp_path, grid=wider)
    assert computed == [2, 2, 0, 0, 0, 2, 0]
    fewer = search(tmp_path, tiny_settings(methods=("last_layer",)))
    assert fewer.table == {"last_layer": first.table["last_layer"]}


def test_equal_rates_go_to_the_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_search, "_accuracies", lambda folder, trial: dict.fromkeys(trial.methods, 0.5))
    assert search(tmp_path, grid=RateGrid(rates=(3e-2, 1e-3), num_tasks=1, domains=("emoji",))).rate == 1e-3


@pytest.mark.parametrize("split", ["test", "valid", "all"])
def test_no_rate_is_chosen_on_a_domain_that_is_tested(split: str) -> None:
    settings = tiny_settings(domains=("icons", "signs"), split=split)
    GRID.check(settings)
    assert GRID.trial(settings, rate=1e-3).domains == ("emoji",)
    assert GRID.trial(tiny_settings(), rate=1e-3).domains == ("emoji", "icons")
    with pytest.raises(ConfigError, match=r"choose the rate on \['emoji', 'icons'\], which data.domains tests"):
        GRID.check(tiny_settings(domains=("icons", "emoji", "signs"), split=split))


def test_the_choice_records_the_domains_it_was_made_on(tmp_path: Path) -> None:
    choice = search(tmp_path, tiny_settings(domains=("icons",), methods=("last_layer",)))
    assert choice.document()["grid"]["domains"] == ("emoji",) and choice.document()["split"] == "valid"
    for name in choice.runs.values():
        assert {(r["domain"], r["split"]) for r in rows_of(tmp_path / FOLDER / name)} == {("emoji", "valid")}


def test_methods_without_training_have_no_rate() -> None:
    with pytest.raises(ConfigError, match=r"none of .* trains; set a rate"):
        GRID.check(tiny_settings(methods=("none", "raw_pixels")))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rates": ()}, "at least one rate"),
        ({"rates": (1e-3, 1e-3)}, "none twice"),
        ({"rates": (0.0,)}, "rate_search.rates: found 0.0"),
        ({"num_tasks": 0}, "rate_search.num_tasks: found 0"),
    ],
)
def test_a_bad_grid_is_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        RateGrid(**({"rates": (1e-3,), "num_tasks": 1, "domains": ("emoji",)} | changes))  # type: ignore[arg-type]


def test_a_run_resumes_with_ratios_of_single_devices(tmp_path: Path) -> None:
    """Its identity is read back from JSON, where a tuple is a list."""
    own = tiny_settings(selection=SelectionSettings(inspect_blocks=2, device_ratios=(("jetson_nano", 0.125),)))
    first = run(own, tmp_path, run_id="mine")
    again = run(own, tmp_path, run_id="mine")
    assert (first.computed, again.computed) == (4, 0)
    channels = {
        row["device"]: row["plan_channels"]
        for row in rows_of(first.folder)
        if row["method"] == "tinytrain" and row["plan_status"] == "ok" and row["task_index"] == 0
    }
    assert sum(channels["jetson_nano"]) < sum(channels["raspberry_pi_4b"])
