"""``tinytrain plan``: fronts, targets, runner-up, budgets, fleets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planner_rows import PHASES, Capture, MakeRun, document, rows_with_ram
from scipy import stats
from synthetic_run import Row, result_row

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.pareto import choices
from tinytrain_dist.reporting.runner_up import contests
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.targets import smallest_devices
from tinytrain_dist.reporting.within import reached_within


def test_the_front_of_a_run(make_run: MakeRun) -> None:
    table = comparison_table(open_run(make_run(rows_with_ram())))
    found = choices(table, "energy", device="raspberry-pi-zero-2")
    assert [c.label for c in found] == ["none", "last_layer", "tinytrain", "full_train"]
    assert all(c.dominated_by is None for c in found if c.on_front)
    best = max(c.accuracy_mean for c in found)
    assert any(c.on_front and c.accuracy_mean == best for c in found)
    assert not [c for c in choices(table, "energy") if c.device == "stm32f746" and c.label == "full_train"]


def test_smallest_device_and_how_sure(make_run: MakeRun) -> None:
    table = comparison_table(open_run(make_run(rows_with_ram(num_tasks=40))))
    by_method = {r.method: r for r in table if r.device == "raspberry-pi-zero-2"}
    full, tiny = by_method["full_train"], by_method["tinytrain"]
    assert full.accuracy_low and full.accuracy_mean and tiny.accuracy_mean
    small, large = smallest_devices(table, min_accuracy=full.accuracy_low)
    assert (small.device, large.device) == ("stm32f746", "raspberry-pi-zero-2")
    assert large.verdict == "sure"
    _, likely = smallest_devices(table, min_accuracy=full.accuracy_mean)
    assert likely.verdict == "likely" and "lower end" in likely.why
    none, nor = smallest_devices(table, min_accuracy=0.99)
    assert none.verdict == nor.verdict == "no" and "misses" in nor.why


def test_the_runner_up_and_what_it_lacks(make_run: MakeRun) -> None:
    run = open_run(make_run(rows_with_ram(num_tasks=30)))
    table = comparison_table(run)
    found = {c.device: c for c in contests(run, table)}
    pi = found["raspberry-pi-zero-2"]
    rows = [row for row in rows_with_ram(num_tasks=30) if row["device"] == "stm32f746"]
    values = {m: np.array([r["accuracy_after"] for r in rows if r["method"] == m]) for m in ("full_train", "tinytrain")}
    assert (pi.winner, pi.runner_up) == ("full_train", "tinytrain")
    assert pi.lead_points == pytest.approx(100 * (values["full_train"] - values["tinytrain"]).mean())
    assert "full_train" in found["stm32f746"].sentence and "does not fit (ram" in found["stm32f746"].sentence


def test_enough_tasks_decide_a_lead() -> None:
    from tinytrain_dist.reporting.runner_up import _tasks_to_decide

    needed = _tasks_to_decide(1.0, 10.0, 40)
    assert needed is not None
    half = stats.t.ppf(0.975, needed - 1) * 10 / np.sqrt(needed)
    before = stats.t.ppf(0.975, needed - 3) * 10 / np.sqrt(needed - 2)
    assert half <= 1.0 + 1e-3 and before > 1.0 - 1e-2
    assert _tasks_to_decide(10.0, 1.0, 40) is None
    assert _tasks_to_decide(9.2, 3.2, 18) is None  # a clear lead with few tasks
    assert _tasks_to_decide(0.3, 6.0, 2) == _tasks_to_decide(0.3, 6.0, 1000)  # not a matter of where one starts


def test_what_is_reached_within_a_budget(make_run: MakeRun) -> None:
    """Loading and selection take 1 s, 40 iterations 4 s: at 3 s iteration 20 is done."""
    row = result_row(
        method="tinytrain", plan_status="ok", plan_hash="p", accuracy_before=0.2, accuracy_after=0.8, **PHASES
    )
    path = make_run([row, result_row(latency_ms=50.0, accuracy_after=0.2, iterations=0)])
    curve = {k: row[k] for k in ("task_id", "checkpoint", "method", "variant", "plan_hash")}
    points = [
        curve | {"iteration": i, "accuracy": a, "loss": 1.0} for i, a in ((10, 0.3), (20, 0.5), (30, 0.7), (40, 0.8))
    ]
    (path / "curves").mkdir()
    pq.write_table(pa.Table.from_pylist(points), path / "curves" / "c.parquet")
    run = open_run(path)
    for limit, accuracy in ((500.0, 0.2), (2500.0, 0.3), (3000.0, 0.5), (4999.0, 0.7), (5000.0, 0.8)):
        found = {r.method: r for r in reached_within(run, resource="time", limit=limit)}
        assert found["tinytrain"].accuracy_mean == pytest.approx(accuracy), limit
        assert found["none"].accuracy_mean == pytest.approx(0.2)
        assert found["tinytrain"].share_done == (limit >= 5000)
    assert reached_within(run, resource="time", limit=10.0)[-1].accuracy_mean is None  # not even the prototypes


def curve_of(row: Row, *, method: str | None = None) -> list[dict[str, object]]:
    """Accuracies at iterations 10, 20, 30, 40 on the straight line from before to after, under a method's name."""
    keys = {name: row[name] for name in ("task_id", "checkpoint", "method", "variant", "plan_hash")}
    keys |= {"method": method or row["method"], "variant": f"{method or row['method']}-1"}
    before, after = row["accuracy_before"], row["accuracy_after"]
    return [keys | {"iteration": i, "loss": 1.0, "accuracy": before + (after - before) * i / 40}
            for i in (10, 20, 30, 40)]  # fmt: skip


def write_curves(path: Path, points: list[dict[str, object]]) -> None:
    (path / "curves").mkdir()
    pq.write_table(pa.Table.from_pylist(points), path / "curves" / "c.parquet")


def test_an_outcome_taken_from_an_equal_plan_has_its_curve(make_run: MakeRun) -> None:
    """last_layer's plan was tuned first; sparse_update took its outcome. Another outcome has no curve of its own."""
    same: Row = {"plan_status": "ok", "plan_hash": "p", "accuracy_before": 0.2, "loss_last": 0.5, **PHASES}
    rows = [result_row(method=name, variant=f"{name}-1", accuracy_after=accuracy, **same)
            for name, accuracy in (("last_layer", 0.8), ("sparse_update", 0.8), ("tinytrain", 0.6))]  # fmt: skip
    path = make_run(rows)
    write_curves(path, curve_of(rows[0]))
    found = {r.method: r for r in reached_within(open_run(path), resource="time", limit=3000.0)}
    assert found["last_layer"].accuracy_mean == pytest.approx(0.5)
    assert found["sparse_update"].accuracy_mean == pytest.approx(0.5) and found["sparse_update"].iteration_p50 == 20
    assert found["tinytrain"].accuracy_mean == pytest.approx(0.2)


def test_within_a_budget_prices_have_ends_and_tasks_are_common(make_run: MakeRun) -> None:
    """5 s a task, 2.5 to 10 s: within 3 s iteration 20, at best all is done (2.5 s), at worst 0.5 of 10 iterations."""
    ends = PHASES | {"latency_low_ms": 2500.0, "latency_high_ms": 10_000.0}
    rows = [
        result_row(task_id=f"t{i}", task_index=i, method=name, variant=f"{name}-1", plan_status="ok", plan_hash=name,
                   accuracy_before=0.2, accuracy_after=0.6 + 0.2 * i, **ends)
        for name, num in (("last_layer", 2), ("tinytrain", 1)) for i in range(num)
    ]  # fmt: skip
    path = make_run(rows)
    write_curves(path, [point for row in rows for point in curve_of(row)])
    found = {r.method: r for r in reached_within(open_run(path), resource="time", limit=3000.0)}
    two = found["last_layer"]
    assert (two.num_tasks, two.num_common) == (2, 1) and two.accuracy_mean == pytest.approx((0.4 + 0.5) / 2)
    assert two.accuracy_common_mean == pytest.approx(0.4) == found["tinytrain"].accuracy_common_mean
    assert two.accuracy_if_cheap == pytest.approx(0.7) and two.share_done_if_cheap == 1.0
    assert two.accuracy_if_dear == pytest.approx(0.2) and two.share_done == two.share_done_if_dear == 0.0


def test_plan_prints_one_document_with_every_section(make_run: MakeRun, tmp_path: Path, capsys: Capture) -> None:
    path, mix = make_run(rows_with_ram()), tmp_path / "mix.csv"
    mix.write_text("device,count,method,battery_wh,idle_w\nstm32f746,10,tinytrain,5,0.001\nraspberry-pi-zero-2,2,,,2\n")
    words = ["plan", str(path), "--pareto", "all", "--min-accuracy", "0.5", "--within-seconds", "10", "--within-joules",
             "5", "--fleet", str(mix), "--per-day", "24", "--what-if", "max_seconds=5"]  # fmt: skip
    found = document(capsys, *words)
    assert {"fits", "pareto", "smallest", "within_time", "within_energy", "fleet"} <= found.keys()
    assert any("accuracy is computed in fp32" in note for note in found["notes"])
    part, _, total = found["fleet"]
    assert part["energy_wh_per_day"] == pytest.approx(
        total["energy_wh_per_day"] - found["fleet"][1]["energy_wh_per_day"]
    )
    energy = np.mean(
        [r["energy_mj"] for r in rows_with_ram() if r["method"] == "tinytrain" and r["device"] == "stm32f746"]
    )
    busy = np.mean(
        [r["latency_ms"] for r in rows_with_ram() if r["method"] == "tinytrain" and r["device"] == "stm32f746"]
    )
    idle = 0.001 * (86_400 - 24 * busy / 1e3) / 3600
    assert part["energy_wh_per_day"] == pytest.approx(10 * (24 * energy / 3.6e6 + idle))
    assert part["battery_days"] == pytest.approx(5 * 10 / part["energy_wh_per_day"])
    assert part["energy_low_wh_per_day"] < part["energy_wh_per_day"] < part["energy_high_wh_per_day"]
    assert main(words) == ExitCode.DONE
    text = capsys.readouterr().out
    assert "Smallest device" in text and "Fleet" in text and "M/G/1" in text and "\x1b" not in text


def test_the_overview_and_its_file(make_run: MakeRun, tmp_path: Path, capsys: Capture) -> None:
    rows = [r | {"device": "=evil()" if r["device"] == "stm32f746" else r["device"]} for r in rows_with_ram()]
    path, out = make_run(rows), tmp_path / "fits.csv"
    assert main(["plan", str(path), "--out", str(out)]) == ExitCode.DONE
    assert "What would have to change" in capsys.readouterr().out
    assert "'=evil()" in out.read_text() and "\n=evil" not in out.read_text()
    assert main(["plan", str(path), "--out", str(out), "--section", "fleet"]) == ExitCode.USAGE


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--what-if", "devise=x"), "did you mean 'device'"),
        (("--what-if", "device=stm32f747"), "unknown device profile"),
        (("--what-if", "power_mode=10W"), "power_mode=10W"),
        (("--max-ram", "much"), "--max-ram: found 'much'"),
        (("--min-accuracy", "60"), "share from 0 to 1"),
        (("--pareto", "weight"), "unknown cost 'weight'"),
        (("--fleet", "/nowhere.csv"), "cannot be read"),
        (("--per-day", "24"), "--per-day: is of the devices of a fleet"),
        (("--per-day", "-1"), "--per-day"),
    ],
)
def test_mistakes_are_named(make_run: MakeRun, capsys: Capture, words: tuple[str, ...], text: str) -> None:
    code = main(["plan", str(make_run(rows_with_ram(devices=("stm32f746",)))), *words])
    assert code in (ExitCode.USAGE, ExitCode.BAD_INPUT)
    assert text in capsys.readouterr().err


def test_nothing_is_reached_before_the_prototypes_are_there(make_run: MakeRun) -> None:
    """On one device and task no method has an accuracy while ``none``, which only makes prototypes, is not done."""
    rows = [row for row in rows_with_ram() if row["device"] == "raspberry-pi-zero-2"]
    rows = [row | ({"iterations": 40, "training_ms": 0.9 * row["latency_ms"]} if row["method"] == "tinytrain" else {})
            for row in rows]  # fmt: skip
    run = open_run(make_run(rows))
    none = [row["latency_ms"] for row in rows if row["method"] == "none"]
    whole = [row["latency_ms"] for row in rows if row["method"] == "tinytrain"]
    assert max(none) < min(whole)
    for limit, tasks in ((0.9 * min(none), 0), (sorted(none)[2], 3), (max(none), len(none))):
        found = {r.method: r for r in reached_within(run, resource="time", limit=limit)}
        assert found["none"].num_tasks == found["tinytrain"].num_tasks == tasks
    assert found["tinytrain"].share_done == 0.0 and found["tinytrain"].accuracy_mean == found["none"].accuracy_mean


def test_a_device_of_unknown_energy_is_named_beside_the_front_it_is_left_out_of(
    make_run: MakeRun, capsys: Capture
) -> None:
    rows = [row | (dict.fromkeys(("energy_mj", "energy_low_mj", "energy_high_mj"))
                   if row["device"] == "raspberry-pi-zero-2" else {}) for row in rows_with_ram()]  # fmt: skip
    note = "no energy is known on raspberry-pi-zero-2: left out of the front against energy"
    found = document(capsys, "plan", str(make_run(rows)), "--pareto", "energy", "latency")
    assert sum(note in said for said in found["notes"]) == 1 and not any("no latency" in n for n in found["notes"])
    assert {e["device"] for e in found["pareto"] if e["cost"] == "energy"} == {"stm32f746"}
