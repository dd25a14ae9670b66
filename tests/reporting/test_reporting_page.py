from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from synthetic_run import Row, failed_row, grid_rows, result_row

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.failures import troubles
from tinytrain_dist.reporting.page import json_for_script, render_page, write_page
from tinytrain_dist.reporting.runs import open_run

MakeRun = Callable[..., Path]
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
MAX_PAGE_BYTES = 8 * 2**20


def embedded(page: str) -> list[dict[str, Any]]:
    """The chart data of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def hostile_rows() -> list[Row]:
    """A grid with a device, method, domain, message and reason that try to run code."""
    rows = grid_rows(num_tasks=4)
    extra = {"device": HOSTILE, "domain": HOSTILE}
    for index in range(4):
        rows.append(result_row(task_id=f"{HOSTILE}{index}", task_index=index, **extra))
        rows.append(result_row(task_id=f"{HOSTILE}{index}", task_index=index, method=HOSTILE, variant=HOSTILE, **extra))
    rows.append(failed_row(task_id="bad", message=HOSTILE, **extra))
    return rows


def test_page_is_small_self_contained_and_repeatable(make_run: MakeRun) -> None:
    run = open_run(make_run())
    page = write_page(run)
    assert page == run.path / "report.html"
    assert page.stat().st_size < MAX_PAGE_BYTES
    text = page.read_text()
    own = text.replace(max(re.findall(r"<script nonce.*?</script>", text, re.DOTALL), key=len), "")
    assert not re.search(r"""(src|href)\s*=|url\(|https?://""", own)
    assert render_page(run) == text
    assert [p.name for p in run.path.iterdir() if p.name.endswith(".tmp")] == []


def test_page_has_every_section_and_the_notice(make_run: MakeRun) -> None:
    text = render_page(open_run(make_run()))
    for section in ("headlines", "devices", "charts", "failures", "provenance"):
        assert f'<section id="{section}">' in text
    assert "accuracy is computed in fp32, time, energy and memory are priced in int8 on stm32f746" in text
    assert "ab12cd" in text and "tinytrain simulate experiment=quickstart" in text


def test_headlines_state_the_computed_gain(make_run: MakeRun) -> None:
    run = open_run(make_run())
    row = next(r for r in comparison_table(run, by="method") if r.method == "tinytrain")
    text = render_page(run)
    assert f"tinytrain: {row.gain_points:+.1f} points over no update (95 % interval {row.gain_low_points:+.1f}" in text
    assert "8 tasks, 2 domains, 2 devices, 5 methods" in text
    assert "full_train: " in text and "every task fits on 1 of 2 devices" in text


def test_charts_are_valid_plotly_with_units_and_the_tables_figures(make_run: MakeRun) -> None:
    run = open_run(make_run())
    charts = {chart["name"]: chart for chart in embedded(render_page(run))}
    assert set(charts) == {"cost-energy", "cost-latency", "cost-memory", "domains"}
    for chart in charts.values():
        assert [place["device"] for place in chart["places"]] == ["raspberry-pi-zero-2", "stm32f746"]
        for place in chart["places"]:
            figure = go.Figure(place["figure"])
            assert "(" in figure.layout.xaxis.title.text
    row = next(r for r in comparison_table(run) if r.method == "tinytrain" and r.device == "stm32f746")
    traces = charts["cost-energy"]["places"][1]["figure"]["data"]
    trace = next(t for t in traces if t["name"] == "tinytrain")
    assert row.energy_p50_mj is not None and row.accuracy_mean is not None
    assert trace["x"][0] == pytest.approx(row.energy_p50_mj / 1000, rel=1e-5)
    assert trace["y"][0] == pytest.approx(100 * row.accuracy_mean, rel=1e-5)
    assert {t["marker"]["symbol"] for t in traces if t["name"] == "full_train"} == {"triangle-up-open"}
    boxes = charts["domains"]["places"][0]["figure"]["data"]
    assert {box["name"] for box in boxes} == {"raw_pixels", "none", "last_layer", "full_train", "tinytrain"}
    assert all(sorted(box["y"]) == ["glyphs", "signs"] for box in boxes)


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


def test_failures_and_infeasible_cells_are_listed(make_run: MakeRun) -> None:
    rows = [
        result_row(task_id="a", method="tinytrain", plan_status="infeasible", plan_reason="12 bytes missing",
                   fits="no", signature="stalled"),
        result_row(task_id="b", method="tinytrain", plan_status="ok", fits="no", signature="collapsed"),
        failed_row("timeout", "no answer in 60 s", task_id="c", method="tinytrain"),
        result_row(task_id="d", method="tinytrain", plan_status="ok", fits="uncertain"),
        result_row(task_id="a"),
    ]  # fmt: skip
    run = open_run(make_run(rows))
    found = {(t.kind, t.num, t.of, t.example) for t in troubles(run)}
    assert found == {
        ("infeasible", 1, 4, "12 bytes missing"),
        ("does not fit", 1, 4, ""),
        ("fit uncertain", 1, 4, ""),
        ("collapsed", 1, 4, ""),
        ("timeout", 1, 4, "no answer in 60 s"),
    }
    assert "0 %, 33 % uncertain, 1 infeasible, 1 failed" in render_page(run)


def test_no_secret_reaches_the_page(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t-0123456789")
    rows = [*grid_rows(num_tasks=2), failed_row(message="cannot log in with s3cr3t-0123456789", task_id="x")]
    page = write_page(open_run(make_run(rows, config={"note": "s3cr3t-0123456789", "password": "p"})))
    assert "s3cr3t" not in page.read_text()


def test_a_run_of_raw_pixels_alone_has_a_page(make_run: MakeRun) -> None:
    text = render_page(open_run(make_run(grid_rows(num_tasks=1, methods=("raw_pixels",)))))
    assert "No method of this run uses a device." in text


def test_a_run_in_which_everything_failed_has_a_page(make_run: MakeRun) -> None:
    text = render_page(open_run(make_run([failed_row(), failed_row(method="tinytrain")])))
    assert "2 of 2 rows failed" in text


def test_a_target_that_cannot_be_written_is_a_storage_error(make_run: MakeRun) -> None:
    run = open_run(make_run())
    (run.path / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html: cannot be written"):
        write_page(run)
