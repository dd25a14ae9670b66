"""How sure a figure is stands wherever the figure does: extrapolation, arithmetic, batch, failures, corrections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from planner_rows import Capture, MakeRun, document, rows_with_ram
from synthetic_run import Row

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.reporting.admissible import admissible, why_not
from tinytrain_dist.reporting.cells import fits_cell
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.fleet import fleet
from tinytrain_dist.reporting.fleet_mix import read_mix
from tinytrain_dist.reporting.formatting import energy, percent_interval
from tinytrain_dist.reporting.headlines import headlines
from tinytrain_dist.reporting.limits import Limits
from tinytrain_dist.reporting.notices import notices
from tinytrain_dist.reporting.page import render_page
from tinytrain_dist.reporting.page_data import PageData
from tinytrain_dist.reporting.pareto import choices
from tinytrain_dist.reporting.rendering import render_table
from tinytrain_dist.reporting.runner_up import contests
from tinytrain_dist.reporting.runs import RunResults, open_run
from tinytrain_dist.reporting.targets import smallest_devices
from tinytrain_dist.reporting.wandb_content import tables, task_sample
from tinytrain_dist.reporting.wandb_report import blocks

BEYOND = "input_grad_macs, ops"


def extrapolated_rows() -> list[Row]:
    """The grid; on stm32f746 two totals of every second task of tinytrain lie outside what was measured."""
    rows = rows_with_ram()
    for row in rows:
        if row["method"] != "raw_pixels":
            outside = row["device"] == "stm32f746" and row["method"] == "tinytrain" and row["task_index"] % 2
            row["extrapolated"] = BEYOND if outside else ""
    return rows


def line(run: RunResults, method: str = "tinytrain", device: str = "stm32f746", **options: Any) -> ComparisonRow:
    found = comparison_table(run, **options)
    return next(row for row in found if (row.method, row.device) == (method, device))


@pytest.mark.slow
def test_what_is_extrapolated_stands_beside_every_standing(make_run: MakeRun, tmp_path: Path, capsys: Capture) -> None:
    run = open_run(make_run(extrapolated_rows()))
    row = line(run)
    assert (row.extrapolated, row.extrapolated_share, row.standing) == (BEYOND, 0.5, "estimate, extrapolated")
    other = line(run, device="raspberry-pi-zero-2")
    assert (other.extrapolated, other.extrapolated_share, other.standing) == ("", 0.0, "estimate")
    assert "estimate, extrapolated" in render_table([row]) and "extrapolated" not in render_table([other])
    said = next(text for text in notices([row, other]) if "extrapolated" in text)
    assert "on stm32f746, input_grad_macs, ops of 50 % of the tasks" in said and "raspberry" not in said

    page = PageData(run).document()
    standings = {(c["v"], c["m"]): (c["standing"], c["text"]) for c in page["cells"] if c["d"] == -2}
    place = page["devices"].index("stm32f746"), [m["label"] for m in page["methods"]].index("tinytrain")
    standing, printed = standings[place]
    assert standing == "estimate, extrapolated" and any("estimate, extrapolated" in cell for cell in printed)

    columns, data = tables(run)["devices/stm32f746"]
    mine = next(values for values in data if "tinytrain" in values)
    assert mine[columns.index("standing")] == "estimate, extrapolated" and 0.5 in mine
    sample, _, names = task_sample(run)
    assert BEYOND in {values[names.index("extrapolated")] for values in sample}

    file, mix = tmp_path / "fits.csv", tmp_path / "mix.csv"
    assert main(["plan", str(run.path), "--out", str(file)]) == ExitCode.DONE
    assert '"estimate, extrapolated","input_grad_macs, ops",0.5' in file.read_text()
    mix.write_text("device,count,method,idle_w\nstm32f746,3,tinytrain,0\nraspberry-pi-zero-2,1,none,0\n")
    capsys.readouterr()
    found = document(capsys, "plan", str(run.path), "--fleet", str(mix))["fleet"]
    assert [part["standing"] for part in found] == ["estimate, extrapolated", "estimate", "estimate, extrapolated"]


def test_a_run_that_does_not_say_what_is_extrapolated_is_not_called_inside(make_run: MakeRun) -> None:
    row = line(open_run(make_run()))
    assert row.extrapolated_share is None and row.extrapolated == ""


def test_every_file_of_the_planner_says_arithmetic_batch_and_standing(
    make_run: MakeRun, tmp_path: Path, capsys: Capture
) -> None:
    run, mix = make_run(extrapolated_rows()), tmp_path / "mix.csv"
    mix.write_text("device,count,method,idle_w\nstm32f746,3,tinytrain,0\n")
    found = document(capsys, "plan", str(run))
    found |= document(capsys, "plan", str(run), "--smallest")
    found |= document(capsys, "plan", str(run), "--fleet", str(mix))
    for section in ("fits", "pareto", "smallest", "runner_up", "fleet"):
        mine = [entry for entry in found[section] if entry["device"] == "stm32f746"]
        assert mine, section
        for entry in mine:
            named = (entry["accuracy_numerics"], entry["price_numerics"], entry["batch"])
            assert named == ("fp32", "int8", "1") and entry["standing"].startswith("estimate"), (section, entry)


@pytest.mark.slow
def test_the_page_and_the_report_say_arithmetic_and_batch(make_run: MakeRun) -> None:
    run = open_run(make_run(extrapolated_rows()))
    page = PageData(run).document()
    place = page["columns"].index("accuracy in / priced in")
    assert page["columns"][place + 1] == "batch"
    by_device = {page["devices"][c["v"]]: c for c in page["cells"] if c["v"] >= 0 and c["d"] == -2}
    assert by_device["stm32f746"]["text"][place : place + 2] == ["fp32 / int8", "1"]
    assert by_device["stm32f746"]["basis"] == "accuracy in fp32, priced in int8, batch 1"
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", render_page(run), re.DOTALL)
    apart = [caption for caption in captions if "accuracy is computed in fp32" in caption]
    assert len(apart) == 3 and all("priced in int8 on stm32f746" in caption for caption in apart)


def test_the_report_on_domains_holds_the_notices(make_run: MakeRun) -> None:
    reports = pytest.importorskip("wandb_workspaces.reports.v2")
    run = open_run(make_run(extrapolated_rows()))
    text = " ".join(getattr(block, "text", "") or "" for block in blocks(reports, run, runset=reports.Runset(name="x")))
    assert "accuracy is computed in fp32" in text and "lie outside what was measured" in text


def one_crash(device: str = "raspberry-pi-zero-2", method: str = "full_train") -> list[Row]:
    """Forty tasks; the most accurate method crashed on one of them, and every finished row fits."""
    rows = rows_with_ram(num_tasks=40)
    crashed = {"status": "crashed", "message": "gone", "accuracy_after": None, "fits": None}
    hit = next(row for row in rows if (row["device"], row["method"], row["task_index"]) == (device, method, 7))
    hit |= crashed
    return rows


def test_a_crashed_task_is_no_task_that_fits(make_run: MakeRun, tmp_path: Path) -> None:
    run = open_run(make_run(one_crash()))
    table = comparison_table(run)
    row = line(run, "full_train", "raspberry-pi-zero-2")
    assert (row.fits_share, row.num_failed, row.num_tasks) == (1.0, 1, 39)
    assert row not in admissible(table) and why_not(row, table) == "1 of 40 rows failed"
    assert fits_cell(row) == "100 (1 failed)"
    places = {(c.device, c.label) for c in choices(table, "energy")}
    assert ("raspberry-pi-zero-2", "tinytrain") in places and ("raspberry-pi-zero-2", "full_train") not in places
    answers = {found.device: found for found in smallest_devices(table, min_accuracy=None)}
    assert answers["raspberry-pi-zero-2"].label == "tinytrain"
    contest = {found.device: found for found in contests(run, table)}["raspberry-pi-zero-2"]
    assert contest.winner == "tinytrain" and "full_train" in contest.sentence and "rows failed" in contest.sentence
    said = headlines(run, table, comparison_table(run, by="method"))
    assert any(text.startswith("full_train: ") and "every task fits on 0 of 2 devices" in text for text in said)
    assert not any("what fits every task: full_train" in text for text in said)
    page = PageData(run).document()
    labels = [m["label"] for m in page["methods"]]
    sure = {(page["devices"][c["v"]], labels[c["m"]]): c["sure"] for c in page["cells"] if c["v"] >= 0 and c["d"] == -2}
    assert sure["raspberry-pi-zero-2", "tinytrain"] and not sure["raspberry-pi-zero-2", "full_train"]
    mix = tmp_path / "mix.csv"
    mix.write_text("device,count\nraspberry-pi-zero-2,1\n")
    (part,) = read_mix(mix, adaptations_per_day=1.0)
    assert fleet(run, table, [part]).rows[0].method == "tinytrain"


def test_a_line_that_skipped_tasks_is_not_on_the_front(make_run: MakeRun) -> None:
    rows = [row for row in rows_with_ram() if row["method"] != "full_train" or row["task_index"] != 3]
    table = comparison_table(open_run(make_run(rows)))
    assert "full_train" not in {choice.label for choice in choices(table, "latency")}
    row = next(row for row in table if row.method == "full_train" and row.device == "raspberry-pi-zero-2")
    assert why_not(row, table) == "7 of 8 tasks finished"


def test_smallest_devices_without_a_target_and_under_a_limit_of_ram(make_run: MakeRun, capsys: Capture) -> None:
    path = make_run(rows_with_ram())
    table = comparison_table(open_run(path), limits=Limits(max_ram_bytes=300_000))
    found = smallest_devices(table, min_accuracy=None)
    assert [(answer.device, answer.ram_bytes) for answer in found] == [
        ("stm32f746", 320 * 1024), ("raspberry-pi-zero-2", 512 * 2**20),
    ]  # fmt: skip
    assert all("target" not in answer.why for answer in found)
    assert main(["plan", str(path), "--smallest"]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert "Smallest device on which a method fits every task" in text and "target" not in text


def test_the_nearest_lacks_least(make_run: MakeRun) -> None:
    rows = [row for row in rows_with_ram(methods=("full_train", "tinytrain")) if row["device"] == "stm32f746"]
    for row in rows:  # the more accurate one misses ten times as much
        lack = 50_000 if row["method"] == "tinytrain" else 500_000
        peak = 320 * 1024 + lack
        row |= {"peak_bytes": peak, "peak_low_bytes": peak, "peak_high_bytes": peak, "ram_margin_bytes": -lack,
                "fits": "no"}  # fmt: skip
    (answer,) = smallest_devices(comparison_table(open_run(make_run(rows))), min_accuracy=None)
    assert answer.verdict == "no" and "nearest: tinytrain (ram -48.8 KiB)" in answer.why


def test_a_gain_is_called_distinguishable_only_after_correction(make_run: MakeRun) -> None:
    rows = rows_with_ram(num_tasks=10)
    gaps = (0.06, -0.02, 0.05, 0.01, 0.08, -0.01, 0.04, 0.06, -0.02, 0.02)
    for row in rows:
        if row["method"] not in ("raw_pixels", "none"):
            row["accuracy_after"] = row["accuracy_before"] + gaps[row["task_index"]]
    run = open_run(make_run(rows))
    by_device, by_method = comparison_table(run), comparison_table(run, by="method")
    row = next(row for row in by_method if row.method == "tinytrain")
    assert row.gain_low_points and row.gain_p_holm and row.gain_low_points > 0 and row.gain_p_holm > 0.05
    said = next(text for text in headlines(run, by_device, by_method) if text.startswith("tinytrain: "))
    assert "not distinguishable from zero once corrected for the methods compared (p 0." in said
    page = PageData(run).document()
    told = {page["methods"][c["m"]]["label"] for c in page["cells"] if c["told"]}
    assert told <= {"raw_pixels"} and any(c["gain"] for c in page["cells"])


def test_the_best_and_the_knee_come_with_interval_lead_and_standing(make_run: MakeRun) -> None:
    run = open_run(make_run(extrapolated_rows()))
    table = comparison_table(run)
    said = headlines(run, table, comparison_table(run, by="method"))
    best = next(text for text in said if "full_train on raspberry-pi-zero-2" in text and "Highest" in text)
    row, contest = line(run, "full_train", "raspberry-pi-zero-2"), contests(run, table)[0]
    assert contest.device == "raspberry-pi-zero-2" and contest.lead_points is not None
    mean = percent_interval(row.accuracy_mean, row.accuracy_high, row.accuracy_low)
    assert f"{mean} %, {contest.lead_points:+.1f} points ahead of the next" in best and best.endswith(", estimate.")
    knee = next(choice for choice in choices(table, "energy") if choice.knee)
    text = next(text for text in said if "the knee is" in text)
    ends = f"({energy(knee.value_low)} to {energy(knee.value_high)}, {knee.standing})"
    assert "±" in text and text.endswith(f"{energy(knee.value)} {ends}.")


def test_a_device_that_falls_behind_uses_the_energy_of_a_full_day_and_no_more(
    make_run: MakeRun, tmp_path: Path, capsys: Capture
) -> None:
    run, mix, found = make_run(rows_with_ram()), tmp_path / "mix.csv", {}
    for rate in (1, 10_000_000, 20_000_000):
        mix.write_text(
            f"device,count,method,adaptations_per_day,battery_wh,idle_w\nstm32f746,2,tinytrain,{rate},10,0\n"
        )
        found[rate] = document(capsys, "plan", str(run), "--fleet", str(mix))
    one, much, more = (found[rate]["fleet"][0] for rate in found)
    assert much["utilisation"] > 1 > one["utilisation"] and more["utilisation"] == pytest.approx(
        2 * much["utilisation"]
    )
    for name in ("energy_wh_per_day", "energy_low_wh_per_day", "energy_high_wh_per_day", "battery_days"):
        assert more[name] == pytest.approx(much[name])
    assert much["energy_low_wh_per_day"] <= much["energy_wh_per_day"] <= much["energy_high_wh_per_day"]
    done = 10_000_000 / much["utilisation"]
    assert much["energy_wh_per_day"] == pytest.approx(done * one["energy_wh_per_day"])
    assert any(f"of the {done:,.4g} a day it gets done" in note for note in found[10_000_000]["notes"])
    assert much["adaptations_done_per_day"] == pytest.approx(done) and one["adaptations_done_per_day"] == 1
    total = found[10_000_000]["fleet"][-1]
    assert (total["adaptations_per_day"], total["adaptations_done_per_day"]) == (2e7, pytest.approx(2 * done))
