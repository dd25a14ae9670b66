"""A method with nothing to update on the network of a run: said, with the reason once, and in no mean of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planner_rows import Capture, MakeRun, document, rows_with_ram
from synthetic_run import failed_row
from test_reporting_page import embedded, figures, one

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.reporting.admissible import admissible, why_not
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.failures import troubles
from tinytrain_dist.reporting.page import render_page
from tinytrain_dist.reporting.planner import answer
from tinytrain_dist.reporting.questions import Questions
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.studies.initialization import initialization
from tinytrain_dist.reporting.studies.main_table import main_table
from tinytrain_dist.reporting.studies.report import StudyReport

REASON = "no static scheme is known for mcunet; tinytrain search-static finds one"


def inapplicable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows ``sparse_update`` has where there is no scheme: priced and scored as ``none``."""
    values = {"method": "sparse_update", "variant": "s-1", "iterations": 0, "plan_reason": REASON}
    return [row | values for row in rows if row["method"] == "none"]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    own = rows_with_ram()
    return own + inapplicable(own)


@pytest.fixture
def path(make_run: MakeRun, rows: list[dict[str, Any]]) -> Path:
    return make_run(rows)


@pytest.mark.parametrize("by", ["device", "method", "domain", "device,domain"])
def test_the_line_holds_no_figure_and_every_other_line_is_as_without_it(make_run: MakeRun, path: Path, by: str) -> None:
    found = comparison_table(open_run(path), by=by)
    lines = [row for row in found if row.method == "sparse_update"]
    assert lines and [row for row in found if row not in lines] == comparison_table(
        open_run(make_run(rows_with_ram(), name="without")), by=by
    )
    for row in lines:
        assert row.is_inapplicable and row.inapplicable == REASON
        assert (row.num_rows, row.num_tasks, row.num_failed) == (row.num_inapplicable, 0, 0) and row.num_rows > 0
        assert row.accuracy_mean is row.accuracy_domain_mean is row.gain_points is row.fits_share is None
        assert row.latency_p50_ms is row.peak_p50_bytes is row.limiting is None and row.failed_share == 0.0


def test_it_is_no_choice(path: Path) -> None:
    found = comparison_table(open_run(path))
    assert all(row.method != "sparse_update" for row in admissible(found))
    assert {why_not(row, found) for row in found if row.method == "sparse_update"} == {"not applicable"}
    document = answer(open_run(path), Questions())
    cells = [entry for entry in document["fits"] if entry["method"] == "sparse_update"]
    assert {(entry["cell"], entry["inapplicable"]) for entry in cells} == {("not applicable", REASON)}
    assert sum(REASON in note for note in document["notes"]) == 1
    assert not any("sparse_update" in str(entry) for entry in (*document["pareto"], *document["runner_up"]))


@pytest.mark.parametrize("verb", ["compare", "plan"])
def test_the_verbs_say_it_with_the_reason_once(path: Path, capsys: Capture, verb: str) -> None:
    assert main([verb, str(path)]) == ExitCode.DONE
    text = " ".join(capsys.readouterr().out.split())
    assert "not applicable" in text and text.count(REASON) == 1
    assert "rows failed" not in text


def test_the_page_says_it(make_run: MakeRun, path: Path, rows: list[dict[str, Any]]) -> None:
    data = figures(path)
    device = data["devices"][0]
    cell = one(data, "cells", method="sparse_update", device=device)
    assert cell["inapplicable"] and cell["text"][1] == "not applicable" and cell["acc"] is cell["gain"] is None
    assert not one(data, "cells", method="none", device=device)["inapplicable"]
    (place,) = [place for place, item in enumerate(data["methods"]) if item["label"] == "sparse_update"]
    assert not any(item["m"] == place for kind in ("spread", "phases", "curves", "pictures") for item in data[kind])
    told = [found for found in troubles(open_run(path)) if found.key[3] == "sparse_update"]
    assert {(found.kind, found.example) for found in told} == {("not applicable", REASON)}
    page = render_page(open_run(path))
    assert embedded(page) == data and "no row failed" in page
    assert page.split('id="data"')[0].count(REASON) == 1


@pytest.mark.parametrize("analysis", [main_table, initialization])
def test_a_study_says_it(path: Path, analysis: Any) -> None:
    report: StudyReport = analysis({"net": open_run(path)})
    text = report.to_markdown(title="x")
    assert text.count(REASON) == 1 and "rows that failed" not in text
    lines = [line for line in text.splitlines() if line.startswith("| sparse_update")]
    assert lines and all(line.startswith("| sparse_update (not applicable) |") for line in lines)
    assert not any("±" in line for line in lines), "no mean is made of it"


def test_failed_rows_of_it_are_failures(make_run: MakeRun, rows: list[dict[str, Any]]) -> None:
    rows[-1] |= failed_row(task_id=rows[-1]["task_id"], method="sparse_update", variant="s-1",
                           device=rows[-1]["device"], domain=rows[-1]["domain"])  # fmt: skip
    found = [row for row in comparison_table(open_run(make_run(rows))) if row.method == "sparse_update"]
    assert sorted(row.num_failed for row in found) == [0, 1]
    assert all(row.num_failed + row.num_inapplicable == row.num_rows for row in found)


def test_a_run_of_nothing_else_says_so(make_run: MakeRun, rows: list[dict[str, Any]], capsys: Capture) -> None:
    alone = [row for row in rows if row["method"] == "sparse_update"]
    assert main(["compare", str(make_run(alone, name="alone"))]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert "no method of the run is applicable" in text and "rows failed" not in text
    document(capsys, "plan", str(make_run(alone, name="again")))
    failed = [failed_row(task_id=f"t{i}", method="none") for i in range(2)]
    assert main(["compare", str(make_run(alone + failed, name="both"))]) == ExitCode.TOO_MANY_FAILURES
    assert "2 of " in capsys.readouterr().out
