"""The comparison as text, CSV and JSON, and the two verbs."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_run import failed_row, grid_rows, result_row

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.formatting import duration, energy, memory, one_line
from tinytrain_dist.reporting.rendering import WIDTH, render_table
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.table_files import csv_cell, write_rows

MakeRun = Callable[..., Path]


def test_the_table_is_plain_and_names_everything(make_run: MakeRun) -> None:
    text = render_table(comparison_table(open_run(make_run())))
    assert "\x1b" not in text
    assert "stm32f746 (priced in int8, memory by paper_memory, batch 1)" in text
    assert "accuracy is computed in fp32, time, energy and memory are priced in int8 on stm32f746" in text
    assert "n<59" in text and "reference" in text and "estimate" in text
    assert text.count("raw_pixels") == 1


@pytest.mark.parametrize("by", ["device", "domain", "method"])
def test_no_line_is_wider_than_160_or_cut(make_run: MakeRun, by: str) -> None:
    device = "raspberry-pi-4b--tflite--int8--t4--cpu--maxn"
    rows = [
        result_row(
            task_id=f"t{i}", method=method, device=device, variant="criterion-fisher-ratio50-0123456789", backbone=b,
            checkpoint=b, plan_status="infeasible" if i % 2 else "ok",
            accuracy_after=i % 2, latency_ms=4.567e7, energy_mj=123_456.0, peak_bytes=987_654_321,
            standing=("estimate", "anchored")[i % 2],
        )
        for i in range(120) for method in ("none", "adapter_drop_50") for b in ("mobilenet_v2", "proxylessnas")
    ]  # fmt: skip
    text = render_table(comparison_table(open_run(make_run(rows)), by=by))  # type: ignore[arg-type]
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "…" not in text
    if by == "device":
        assert "12.7 h / 12.7 h" in text and "942 MiB / 942 MiB" in text


def test_numbers_are_read_with_units() -> None:
    assert [duration(v) for v in (None, 0.5, 999.0, 61_000.0, 7.2e6)] == ["-", "0.5 ms", "999 ms", "1.02 min", "2 h"]
    assert [energy(v) for v in (3.0, 1234.0, 5e6)] == ["3 mJ", "1.23 J", "5 kJ"]
    assert [memory(v) for v in (10, 2048, 3 * 2**20)] == ["10 B", "2 KiB", "3 MiB"]


def test_a_name_cannot_steer_the_terminal(make_run: MakeRun) -> None:
    text = render_table(comparison_table(open_run(make_run([result_row(device="\x1b[31mred[bold]x")]))))
    assert "\x1b" not in text and "[31mred[bold]x" in text
    assert one_line("a\nb" + "c" * 300, limit=10) == "a bcccc..."


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", " =1"])
def test_formulas_are_neutralised(text: str) -> None:
    assert csv_cell(text) == "'" + text


def test_numbers_stay_numbers() -> None:
    assert csv_cell(-1.5) == -1.5 and csv_cell(None) is None and csv_cell("tinytrain") == "tinytrain"


def test_csv_round_trip(make_run: MakeRun, tmp_path: Path) -> None:
    rows = comparison_table(open_run(make_run([*grid_rows(), result_row(device="=HYPERLINK(1)")])))
    write_rows([row.to_dict() for row in rows], tmp_path / "out.csv", "csv")
    with (tmp_path / "out.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert len(found) == len(rows)
    assert found[0]["method"] == "raw_pixels" and float(found[0]["gain_points"]) == rows[0].gain_points
    assert float(found[0]["gain_points"]) < 0
    assert found[0]["device"] == "" and found[1]["device"] == "'=HYPERLINK(1)"


def test_compare_prints_json_and_nothing_else(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run([*grid_rows(), failed_row(method="tiny_tl")])
    assert main(["compare", str(path), "--by", "method", "--json"]) == ExitCode.DONE
    out = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in out] == ["raw_pixels", "none", "last_layer", "full_train", "tiny_tl", "tinytrain"]
    expected = [dataclasses.asdict(row) for row in comparison_table(open_run(path), by="method")]
    assert out == expected


def test_compare_prints_a_table_and_writes_csv(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "sub" / "c.csv"
    assert main(["compare", str(make_run()), "--csv", str(target)]) == ExitCode.DONE
    assert "tinytrain" in capsys.readouterr().out
    assert target.read_text().startswith("device,domain,")


def test_compare_mistakes(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path / "nowhere")]) == ExitCode.STORAGE
    assert main(["compare", str(make_run()), "--by", "planet"]) == ExitCode.USAGE
    assert main(["compare", str(tmp_path), "--jsn"]) == ExitCode.USAGE
    assert "did you mean '--json'" in capsys.readouterr().err


def test_report_writes_the_page(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run()
    assert main(["report", str(path), "--json"]) == ExitCode.DONE
    out = json.loads(capsys.readouterr().out)
    page = path / "report.html"
    assert out == {"page": str(page), "bytes": page.stat().st_size, "wandb": None}
