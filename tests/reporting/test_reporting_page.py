from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_page import HOSTILE, hostile_rows, page_rows, write_side_files
from synthetic_run import failed_row, grid_rows, result_row

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.reporting import page_data, page_parts
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.failures import troubles
from tinytrain_dist.reporting.figures import FIGURES
from tinytrain_dist.reporting.page import json_for_script, render_page, write_page
from tinytrain_dist.reporting.runs import open_run

MakeRun = Callable[..., Path]
Json = dict[str, Any]
MAX_PAGE_BYTES = 8 * 2**20
ALL = page_data.ALL


def embedded(page: str) -> Json:
    """The figures of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def figures(path: Path) -> Json:
    """What the page of a run embeds, without the page."""
    document = page_data.PageData(open_run(path)).document()
    return json.loads(json.dumps(document, allow_nan=False))  # type: ignore[no-any-return]


def one(data: Json, kind: str, *, method: str, device: str | None = None, domain: str | None = None) -> Json:
    """The figure of one method on one device (None: no device, or each task averaged) and domain (None: all)."""
    methods = [item["label"] for item in data["methods"]]
    place = {data["devices"].index(device)} if device else {ALL, page_data.NO_DEVICE}
    where = data["domains"].index(domain) if domain else ALL
    (found,) = [i for i in data[kind] if i["d"] == where and i["v"] in place and i["m"] == methods.index(method)]
    return found  # type: ignore[no-any-return]


@pytest.fixture
def full_run(make_run: MakeRun) -> Path:
    rows = page_rows()
    path = make_run(rows)
    write_side_files(path, rows)
    return path


def test_page_is_small_self_contained_and_repeatable(full_run: Path) -> None:
    run = open_run(full_run)
    page = write_page(run)
    assert embedded(page.read_text()) == figures(full_run)
    assert page == run.path / "report.html"
    assert page.stat().st_size < MAX_PAGE_BYTES
    text = page.read_text()
    own = text.replace(max(re.findall(r"<script.*?</script>", text, re.DOTALL), key=len), "")
    assert set(re.findall(r"""(?:src|href)\s*=\s*"(.)""", own)) == {"#"}  # links inside the page, nothing else
    assert not re.search(r"url\(|https?://|import\(|fetch\(|XMLHttp|eval\(|innerHTML", own)
    assert render_page(run) == text
    assert [p.name for p in run.path.iterdir() if p.name.endswith(".tmp")] == []


def test_every_section_is_there_and_in_the_contents(make_run: MakeRun) -> None:
    text = render_page(open_run(make_run()))
    sections = re.findall(r'<section id="([a-z]+)"', text)
    assert sections == re.findall(r'<li><a href="#([a-z]+)">', text)
    assert {"headlines", "devices", "fronts", "domains", "curves", "costs", "plans", "failures", "provenance"} == set(
        sections
    )
    assert "accuracy is computed in fp32, time, energy and memory are priced in int8 on stm32f746" in text
    assert "ab12cd" in text and "tinytrain simulate experiment=quickstart" in text


def test_headlines_state_the_computed_gain(make_run: MakeRun) -> None:
    run = open_run(make_run())
    row = next(r for r in comparison_table(run, by="method") if r.method == "tinytrain")
    text = render_page(run)
    assert f"tinytrain: {row.gain_points:+.1f} points over no update (95 % interval {row.gain_low_points:+.1f}" in text
    assert "8 tasks, 2 domains, 2 devices, 5 methods" in text
    assert "full_train: " in text and "every task fits on 1 of 2 devices" in text


@pytest.mark.parametrize(
    ("by", "device", "domain"),
    [("device", "stm32f746", None), ("device,domain", "stm32f746", "glyphs"), ("domain", None, "signs"),
     ("method", None, None)],
)  # fmt: skip
def test_cells_are_the_comparison_of_what_is_chosen(
    make_run: MakeRun, by: str, device: str | None, domain: str | None
) -> None:
    run = open_run(make_run())
    data = figures(run.path)
    rows = [r for r in comparison_table(run, by=by) if (r.device, r.domain) == (device, domain) and r.backbone]
    assert len(rows) == 4
    for row in rows:
        cell = one(data, "cells", method=row.method, device=device, domain=domain)
        assert cell["n"] == row.num_tasks
        assert row.accuracy_mean is not None and row.accuracy_low is not None
        assert cell["acc"][:2] == pytest.approx([100 * row.accuracy_mean, 100 * row.accuracy_low], rel=1e-4)
        assert cell["gain"][0] == pytest.approx(row.gain_points, rel=1e-4)
        if device:
            assert cell["energy"] == pytest.approx(
                [row.energy_p50_mj / 1e3, row.energy_low_mj / 1e3, row.energy_high_mj / 1e3],
                rel=1e-4,  # type: ignore[operator]
            )


def test_spread_counts_every_task_once(full_run: Path) -> None:
    data = figures(full_run)
    for method in ("raw_pixels", "none", "tinytrain"):
        spread = one(data, "spread", method=method, domain="signs")
        assert sum(spread["counts"]) == 4 and len(spread["counts"]) == data["bins"]
    after = [r["accuracy_after"] for r in page_rows() if r["method"] == "tinytrain" and r["domain"] == "signs"][::2]
    expected = np.histogram(after, bins=data["bins"], range=(0, 1))[0]
    assert spread["counts"] == expected.tolist()


def test_phases_are_means_that_add_up_to_the_latency(full_run: Path) -> None:
    data = figures(full_run)
    rows = [r for r in page_rows() if r["method"] == "tinytrain" and r["device"] == "stm32f746"]
    found = one(data, "phases", method="tinytrain", device="stm32f746")
    load, selection, training, swap, low, high = found["time"]
    total = np.mean([r["latency_ms"] for r in rows]) / 1e3
    assert load + selection + training + swap == pytest.approx(total, rel=1e-4)
    assert (selection / total, swap) == (pytest.approx(0.15, rel=1e-3), 0)
    assert (low, high) == (pytest.approx(total / 2, rel=1e-4), pytest.approx(2 * total, rel=1e-4))
    signs = one(data, "phases", method="tinytrain", device="stm32f746", domain="signs")
    assert (found["n"], signs["n"]) == (8, 4)


def test_curves_run_from_the_start_of_training_to_the_last_accuracy(full_run: Path) -> None:
    data = figures(full_run)
    rows = [r for r in page_rows() if r["method"] == "tinytrain" and r["device"] == "stm32f746"]
    start, half, end = one(data, "curves", method="tinytrain", device="stm32f746")["points"]
    seconds = np.array([r["latency_ms"] for r in rows]) / 1e3
    assert [start[0], half[0], end[0]] == [0, 20, 40]
    assert start[1] == pytest.approx(np.median(0.2 * seconds), rel=1e-4)  # loading and selection
    assert half[1] == pytest.approx(np.median(0.6 * seconds), rel=1e-4)
    assert end[1] == pytest.approx(np.median(seconds), rel=1e-4)
    cell = one(data, "cells", method="tinytrain", device="stm32f746")
    assert end[2:5] == pytest.approx(cell["acc"], rel=1e-4) and end[5] == 8
    assert start[2] == pytest.approx(100 * np.mean([r["accuracy_before"] for r in rows]), rel=1e-4)


def test_pictures_hold_the_mean_channels_of_each_layer(make_run: MakeRun) -> None:
    rows = page_rows()
    changed = next(r for r in rows if r["method"] == "tinytrain" and r["device"] == "stm32f746")
    changed |= {"plan_layers": [41], "plan_channels": [12]}
    data = figures(make_run(rows))
    picture = one(data, "pictures", method="tinytrain", device="stm32f746")
    assert picture["layers"] == {"38": [0.875, 3.5], "40": [0.875, 3.5], "41": [1.0, 5.0]}
    assert len(data["layers"]) == 42 and data["layers"][0] == {"i": 0, "t": "0 stem", "c": 16}
    assert not [p for p in data["pictures"] if data["methods"][p["m"]]["label"] == "none"]


def test_potentials_are_shares_of_each_task(full_run: Path) -> None:
    data = figures(full_run)
    (pooled,) = [p for p in data["potentials"] if p["d"] == ALL]
    assert sum(share[0] for share in pooled["shares"].values()) == pytest.approx(100, abs=0.01)
    assert pooled["n"] == 8 and len(data["potentials"]) == 3
    assert all(low < mean < high for mean, low, high in pooled["shares"].values())


@pytest.mark.slow
def test_a_fair_sample_of_very_many_side_files_is_read(full_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_parts, "MAX_FILES", 4)
    assert next(p for p in figures(full_run)["potentials"] if p["d"] == ALL)["n"] == 4


def test_damaged_side_files_leave_the_rest_of_the_page(full_run: Path) -> None:
    (full_run / "curves" / "0000.parquet").write_bytes(b"PAR1 not really")
    data = figures(full_run)
    assert data["curves"] == [] and data["potentials"] and data["cells"]


def test_too_many_cells_are_shown_for_all_domains_together(full_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_data, "MAX_CELLS", 10)
    data = figures(full_run)
    assert data["domains"] == [] and data["spread"] == []
    assert {item["d"] for kind in ("cells", "curves", "phases", "pictures", "potentials") for item in data[kind]} == {
        ALL
    }


def test_hostile_names_are_inert_text(make_run: MakeRun) -> None:
    text = render_page(open_run(make_run(hostile_rows(), run_id=HOSTILE)))
    assert HOSTILE not in text and "<img src=x" not in text
    assert "&lt;script&gt;window.hacked=1" in text
    assert "<" not in re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1]  # type: ignore[index]


def test_json_for_script_survives_a_round_trip() -> None:
    value = {"a": HOSTILE + "\u2028&<!--"}
    text = json_for_script(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_failures_and_infeasible_cells_are_counted(make_run: MakeRun) -> None:
    rows = [
        result_row(task_id="a", method="tinytrain", plan_status="infeasible", plan_reason="12 bytes missing",
                   fits="no", signature="stalled"),
        result_row(task_id="b", method="tinytrain", plan_status="ok", fits="no", signature="collapsed"),
        failed_row("timeout", "no answer in 60 s", task_id="c", method="tinytrain"),
        result_row(task_id="d", method="tinytrain", plan_status="ok", fits="uncertain"),
        result_row(task_id="a"),
    ]  # fmt: skip
    run = open_run(make_run(rows))
    expected = {
        ("infeasible", 1, "12 bytes missing"),
        ("does not fit", 1, ""),
        ("fit uncertain", 1, ""),
        ("collapsed", 1, ""),
        ("timeout", 1, "no answer in 60 s"),
    }
    assert {(t.kind, t.num, t.example) for t in troubles(run) if t.of == 4 and t.domain == "signs"} == expected
    data = figures(run.path)
    assert {(t["kind"], t["num"], t["example"]) for t in data["troubles"]} == expected
    cell = one(data, "cells", method="tinytrain", device="stm32f746")
    assert (cell["fits"], cell["infeasible"], cell["failed"], cell["rows"]) == (0, 1, 1, 4)
    assert cell["unsure"] == pytest.approx(1 / 3, rel=1e-4)


def test_no_secret_reaches_the_page(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t-0123456789")
    rows = [*grid_rows(num_tasks=2), failed_row(message="cannot log in with s3cr3t-0123456789", task_id="x")]
    rows += grid_rows(num_tasks=1, devices=["board-s3cr3t-0123456789"], domains=["s3cr3t-0123456789"])
    page = write_page(open_run(make_run(rows, config={"note": "s3cr3t-0123456789", "password": "p"})))
    assert "s3cr3t" not in page.read_text()


def test_a_run_of_raw_pixels_alone_has_a_page(make_run: MakeRun) -> None:
    data = figures(make_run(grid_rows(num_tasks=1, methods=("raw_pixels",))))
    assert data["devices"] == [] and [cell["v"] for cell in data["cells"]] == [page_data.NO_DEVICE] * 2


def test_a_run_in_which_everything_failed_has_a_page(make_run: MakeRun) -> None:
    text = render_page(open_run(make_run([failed_row(), failed_row(method="tinytrain")])))
    assert "2 of 2 rows failed" in text
    assert {cell["failed"] for cell in embedded(text)["cells"]} == {1}


def test_a_run_of_one_device_needs_no_averages(make_run: MakeRun) -> None:
    data = figures(make_run(grid_rows(devices=["only"])))
    assert data["devices"] == ["only"] and ALL not in {cell["v"] for cell in data["cells"]}


def test_a_target_that_cannot_be_written_is_a_storage_error(make_run: MakeRun) -> None:
    run = open_run(make_run())
    (run.path / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html: cannot be written"):
        write_page(run)


def test_potentials_are_of_one_network_each(make_run: MakeRun) -> None:
    rows = page_rows(num_tasks=4)
    other = [row | {"checkpoint": "decaf", "initialization": "random"} for row in rows if row["backbone"]]
    path = make_run(rows + other)
    tasks = sorted({row["task_id"] for row in rows})
    points = [
        {"task_id": task, "checkpoint": name, "layer": layer, "potential": weight * (layer - 39), "delta": [0.0]}
        for name, weight, top in (("c0ffee", 1.0, 42), ("decaf", 1e6, 41))
        for task in tasks[: 4 if name == "c0ffee" else 3] for layer in range(40, top)
    ]  # fmt: skip
    (path / "fisher").mkdir()
    pq.write_table(pa.Table.from_pylist(points), path / "fisher" / "0.parquet")
    found = {entry["name"]: entry for entry in figures(path)["potentials"] if entry["d"] == page_data.ALL}
    assert {name: entry["n"] for name, entry in found.items()} == {
        "mcunet, meta_trained, c0ffee": 4, "mcunet, random, decaf": 3,
    }  # fmt: skip
    assert found["mcunet, meta_trained, c0ffee"]["shares"]["41"][0] == pytest.approx(100 * 2 / 3, rel=1e-4)
    assert found["mcunet, random, decaf"]["shares"]["40"][0] == pytest.approx(100.0)


@pytest.mark.parametrize("potential", [float("nan"), float("inf"), float("-inf")])
def test_potentials_that_are_no_numbers_are_left_out(make_run: MakeRun, potential: float) -> None:
    rows = page_rows(num_tasks=4)
    path = make_run(rows)
    tasks = sorted({row["task_id"] for row in rows})
    points = [
        {"task_id": task, "checkpoint": "c0ffee", "layer": layer, "potential": value, "delta": [value]}
        for task in tasks for layer, value in ((40, 1.0), (41, potential if task == tasks[0] else 3.0))
    ]  # fmt: skip
    (path / "fisher").mkdir()
    pq.write_table(pa.Table.from_pylist(points), path / "fisher" / "0.parquet")
    (found,) = [entry for entry in figures(path)["potentials"] if entry["d"] == page_data.ALL]
    assert found["n"] == 3 and found["shares"]["41"][0] == pytest.approx(75.0)


def test_the_figure_of_the_front_has_the_ends_of_both_axes(make_run: MakeRun) -> None:
    rows = comparison_table(open_run(make_run()))
    drawn = FIGURES["pareto"](rows, [])
    marks = [(x, trace.error_x.array[place], trace.error_x.arrayminus[place], trace.error_y.array[place])
             for trace in drawn.data for place, x in enumerate(trace.x)]  # fmt: skip
    assert len(marks) > 4
    for energy, up, down, half in marks:
        assert (up, down) == pytest.approx((energy, energy / 2)) and half > 0
