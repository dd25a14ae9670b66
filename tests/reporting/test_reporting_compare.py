"""``tinytrain compare``: what fits and why, averages and corrections, several runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from planner_rows import Capture, MakeRun, document, rows_with_ram
from scipy import stats
from synthetic_run import failed_row, grid_rows, result_row

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.places import MAX_EXACT
from tinytrain_dist.reporting.rendering import WIDTH, plain_text, render_table, text_tables
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.several_runs import compare_runs


def test_fits_are_split_by_resource_with_reason_and_margin(make_run: MakeRun) -> None:
    run = open_run(make_run(rows_with_ram()))
    table = comparison_table(run, limits=Limits(max_latency_ms=1000.0, max_energy_mj=1e9))
    full = next(r for r in table if r.device == "stm32f746" and r.method == "full_train")
    assert (full.fits_ram_share, full.fits_flash_share, full.fits_time_share, full.fits_energy_share) == (0, 1, 0, 1)
    assert full.limiting == "ram" and full.fits_share == 0.0
    peak = max(r["peak_bytes"] for r in rows_with_ram() if r["method"] == "full_train" and r["device"] == "stm32f746")
    assert full.ram_margin_bytes == 320 * 1024 - peak and full.flash_margin_bytes == 400_000
    none = next(r for r in table if r.device == "stm32f746" and r.method == "none")
    assert none.limiting is None and none.fits_share == 1.0 and none.selection_share == pytest.approx(0.1)
    last = next(r for r in table if r.device == "raspberry-pi-zero-2" and r.method == "last_layer")
    assert last.limiting == "time" and last.time_margin_ms is not None and last.time_margin_ms < 0
    assert (last.fits_share, last.uncertain_share, last.num_tasks_where_fits) == (0.0, 1.0, 0)
    plain = next(r for r in comparison_table(run) if r.device == "stm32f746" and r.method == "none")
    assert plain.fits_time_share is None and plain.time_margin_ms is None and plain.latency_error_factor == 2.0


def test_the_split_agrees_with_the_stored_verdict(make_run: MakeRun) -> None:
    """Without limits of one's own, what fits is what the rows say."""
    run = open_run(make_run(rows_with_ram()))
    for row in comparison_table(run):
        sql = "SELECT avg((fits = 'yes')::INT) AS yes FROM rows WHERE method = ? AND device IS NOT DISTINCT FROM ?"
        stored = run.select(sql, [row.method, row.device])[0]["yes"]
        assert row.fits_share == pytest.approx(stored)


def test_domains_are_averaged_alike_beside_the_pooled_mean(make_run: MakeRun) -> None:
    parts = {"a": [0.2, 0.3, 0.4, 0.5], "b": [0.9, 0.8]}
    rows = [
        result_row(task_id=f"{d}/{i}", domain=d, accuracy_after=v) for d, vs in parts.items() for i, v in enumerate(vs)
    ]
    row = comparison_table(open_run(make_run(rows)))[0]
    assert row.accuracy_mean == pytest.approx(np.mean([*parts["a"], *parts["b"]])) and row.num_domains == 2
    assert row.accuracy_domain_mean == pytest.approx((0.35 + 0.85) / 2)
    welch = stats.ttest_ind(parts["a"], [-v for v in parts["b"]], equal_var=False).confidence_interval(0.95)
    assert (row.accuracy_domain_low, row.accuracy_domain_high) == pytest.approx((welch.low / 2, welch.high / 2))


def test_p_values_are_paired_and_corrected_over_the_methods_of_a_place(make_run: MakeRun) -> None:
    table = comparison_table(open_run(make_run(grid_rows(num_tasks=12))))
    here = [r for r in table if r.device == "stm32f746" and r.gain_p_value is not None]
    assert {r.method for r in here} == {"last_layer", "full_train", "tinytrain"}
    rows = grid_rows(num_tasks=12)
    for row in here:
        pairs = [(r["accuracy_after"], r["accuracy_before"]) for r in rows
                 if r["method"] == row.method and r["device"] == "stm32f746"]  # fmt: skip
        assert row.gain_p_value == pytest.approx(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue, rel=1e-3)
        assert row.gain_p_holm is not None and row.gain_p_value <= row.gain_p_holm <= 3 * row.gain_p_value + 1e-12


def test_by_way_and_shot_and_several_places_at_once(make_run: MakeRun) -> None:
    rows = [
        result_row(task_id=f"t{i}", way=5 + i % 2, support_size=(5 + i % 2) * 3, domain="ab"[i % 2]) for i in range(6)
    ]
    run = open_run(make_run([*rows, failed_row(task_id="t0", method="tinytrain", way=5, support_size=0, domain="a")]))
    assert [(r.way, r.num_tasks) for r in comparison_table(run, by="way") if r.method == "none"] == [("5", 3), ("6", 3)]
    both = comparison_table(run, by="shot,domain,device")
    assert {(r.shot, r.domain, r.device) for r in both} == {("3", d, "stm32f746") for d in "ab"}
    many = [result_row(task_id=f"t{i}", way=2 + 2 * i, support_size=2 + 2 * i) for i in range(MAX_EXACT + 1)]
    bands = [r.way for r in comparison_table(open_run(make_run(many, name="many")), by="way")]
    assert bands == ["2-4", "5-9", "10-19"]
    with pytest.raises(ConfigError, match="did you mean 'device'"):
        comparison_table(run, by="devise")


def test_p99_needs_299_tasks(make_run: MakeRun) -> None:
    for num, known in ((298, False), (299, True)):
        rows = [result_row(task_id=f"t{i}", task_index=i, latency_ms=float(i)) for i in range(num)]
        row = comparison_table(open_run(make_run(rows, name=f"n{num}")))[0]
        assert (row.latency_p99_ms is not None) is known and row.latency_p95_ms is not None
    assert row.latency_p99_ms == pytest.approx(np.quantile(np.arange(299), 0.99))


@pytest.mark.slow
def test_bootstrap_is_stated_and_close_to_students_t(make_run: MakeRun, capsys: Capture) -> None:
    path = make_run(grid_rows(num_tasks=60))
    t, boot = (comparison_table(open_run(path), by="method", interval=k) for k in ("t", "bootstrap"))
    for first, second in zip(t, boot, strict=True):
        assert second.interval == "bootstrap" and second.accuracy_mean == pytest.approx(first.accuracy_mean)
        assert second.accuracy_low == pytest.approx(first.accuracy_low, abs=0.01)
    assert main(["compare", str(path), "--interval", "bootstrap"]) == ExitCode.DONE
    assert "percentile bootstrap over tasks" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_compare_writes_every_format(make_run: MakeRun, tmp_path: Path, capsys: Capture, form: str) -> None:
    path, out = make_run([*grid_rows(), result_row(device="=cmd()")]), tmp_path / f"out.{form}"
    assert main(["compare", str(path), "--format", form, "--out", str(out)]) == ExitCode.DONE
    assert capsys.readouterr().out == ""
    expected = document(capsys, "compare", str(path))
    if form == "parquet":
        assert pq.read_table(out).to_pylist() == expected
    elif form == "json":
        assert json.loads(out.read_text()) == expected
    else:
        assert "'=cmd()" in out.read_text() and len(out.read_text().splitlines()) == len(expected) + 1
    assert main(["compare", str(path), "--format", "parquet"]) == ExitCode.USAGE
    assert main(["compare", str(path), "--out", str(out)]) == ExitCode.USAGE


def test_runs_are_paired_on_the_same_tasks(make_run: MakeRun, capsys: Capture) -> None:
    rows = grid_rows(num_tasks=10, methods=("none", "tinytrain"))
    random = np.random.default_rng(5)
    other = [r | {"checkpoint": "beef", "initialization": "pretrained", "variant": "new",
                  "accuracy_after": r["accuracy_after"] - float(random.normal(0.05, 0.02))} for r in rows]  # fmt: skip
    paths = [make_run(rows, name="one", run_id="one"), make_run(other[4:], name="two", run_id="two")]
    found = compare_runs([open_run(p) for p in paths])
    later = next(r for r in found.rows if r.run == "two" and r.method == "tinytrain" and r.device == "stm32f746")
    pairs = [(b["accuracy_after"], a["accuracy_after"]) for a, b in zip(rows[4:], other[4:], strict=True)
             if a["method"] == "tinytrain" and a["device"] == "stm32f746"]  # fmt: skip
    gaps = 100 * np.array([b - a for b, a in pairs])
    low, high = stats.t.interval(0.95, len(gaps) - 1, loc=gaps.mean(), scale=stats.sem(gaps))
    assert later.num_versus_pairs == 9 and later.versus_run == "one"
    assert (later.versus_points, later.versus_low_points, later.versus_high_points) == pytest.approx(
        (gaps.mean(), low, high)
    )
    assert main(["compare", *map(str, paths)]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert "versus the first run" in text and "standing" in text and max(map(len, text.splitlines())) <= WIDTH
    assert document(capsys, "compare", *map(str, paths)) == [row.to_dict() for row in found.rows]


def test_the_run_named_first_stands_above_the_others(make_run: MakeRun) -> None:
    rows = grid_rows(num_tasks=3, methods=("none", "tinytrain"))
    meta, plain = (
        make_run([row | {"initialization": name} for row in rows], name=name, run_id=name)
        for name in ("z-first", "a-second")
    )
    found = compare_runs([open_run(meta), open_run(plain)]).rows
    lines = [(row.device, row.method, row.run) for row in found]
    assert lines == [(device, method, run) for device in dict.fromkeys(row.device for row in found)
                     for method in dict.fromkeys(row.method for row in found if row.device == device)
                     for run in ("z-first", "a-second")]  # fmt: skip


def test_tasks_of_other_images_are_not_paired(make_run: MakeRun) -> None:
    rows = grid_rows(methods=("none",))
    paths = [make_run(rows, name=n, run_id=n, identity={"domain_hashes": {"signs": n, "glyphs": "x"}}) for n in "ab"]
    found = compare_runs([open_run(p) for p in paths])
    assert "signs held other images" in found.notes[0]
    assert {r.num_versus_pairs for r in found.rows if r.run == "b"} == {4}
    strangers = [r | {"task_id": "x" + r["task_id"]} for r in rows]
    apart = compare_runs([open_run(paths[0]), open_run(make_run(strangers, name="c"))])
    assert "no task in common" in apart.notes[0]


def test_a_table_too_wide_for_the_page_is_continued_instead_of_losing_its_last_column(make_run: MakeRun) -> None:
    """From 59 tasks on each cost cell holds two numbers; how far they can be trusted has to stay readable."""
    changes = {"standing": "calibrated, extrapolated", "latency_ms": 113_600.0, "energy_mj": 205_123.0}
    rows = [row | {"task_id": f"{turn}/{row['task_id']}"} | ({} if row["device"] is None else changes)
            for turn in range(12) for row in rows_with_ram()]  # fmt: skip
    table = comparison_table(open_run(make_run(rows)))
    assert max(row.num_tasks for row in table) >= 59
    text = render_table(table)
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    priced = [row for row in table if row.num_priced]
    assert priced and text.count(" calibrated,") == len(priced)
    assert "n<299" in text and "\n\n\n" not in text


def test_continued_tables_hold_every_cell_once_beside_the_repeated_columns() -> None:
    names = ["device", *(f"column {at}" for at in range(12)), "standing"]
    line = ["a board", *(f"cell-{at}-{'x' * 18}" for at in range(12)), "anchored+calibrated, extrapolated"]
    text = plain_text(text_tables(names, [line], repeat=1))
    assert all(text.count(cell) == 1 for cell in line[1:-1]) and text.count("a board") == text.count("device") > 1
    assert "anchored+calibrated," in text and max(len(found) for found in text.splitlines()) <= WIDTH
    assert plain_text(text_tables(names[:3], [line[:3]], repeat=1)).count("device") == 1
