"""Rows: complete in every state, signatures by rule, a variant for every outcome and no other."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_simulation import DEVICES, Diverges, Raises, add_method, rows_of, run, tiny_settings

from tinytrain_dist.adaptation import fine_tuning, numerics
from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.adaptation.plan_weights import PlanWeights
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ConfigError, ExitCode, RunLockedError
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import UpdatePlan
from tinytrain_dist.simulation.plan_run import plan_run
from tinytrain_dist.simulation.request import Chunk, UnitSetup
from tinytrain_dist.simulation.rows import signature, variant_of
from tinytrain_dist.simulation.run_document import check_identity
from tinytrain_dist.simulation.schema import COLUMNS, result_schema
from tinytrain_dist.simulation.unit import MachineError, Unit
from tinytrain_dist.simulation.worker import failed_result, network_of

ONE_TASK = {"domains": ("signs",), "num_tasks": 1}
COSTS = [c.name for c in COLUMNS if c.name.endswith(("_bytes", "_macs", "_ms")) and not c.name.startswith("budget")]


def assert_complete(row: dict[str, Any]) -> None:
    assert set(row) == {c.name for c in COLUMNS}
    missing = [c.name for c in COLUMNS if not c.null and row[c.name] is None]
    assert missing == []


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    result = run(tiny_settings(**ONE_TASK), tmp_path_factory.mktemp("rows"))
    assert result.exit_code == ExitCode.DONE
    return rows_of(result.folder)


def test_one_row_per_method_and_device_and_all_complete(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 4 * len(DEVICES)
    for row in rows:
        assert_complete(row)
        assert (row["way"], row["shots"], row["support_size"], row["query_size"]) == (3, [2, 2, 2], 6, 9)
        assert row["accuracy_numerics"] == "fp32" and row["mode"] == "reference" and row["attempt"] == 1
        assert row["price_numerics"] == ("int8" if row["device"] == "stm32f746" else "fp32")


def test_costs_stand_where_a_network_runs(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        filled = [name for name in COSTS if row[name] is not None and name != "host_ms"]
        assert filled == [] if row["method"] == "raw_pixels" else len(filled) >= 20
        phases = sum(row[name] or 0 for name in ("load_ms", "selection_ms", "training_ms", "swap_ms"))
        assert row["latency_ms"] is None or row["latency_ms"] == pytest.approx(phases)
        assert bool(row["fisher_macs"]) == (row["method"] == "tinytrain")


def test_only_methods_with_a_plan_have_one(rows: list[dict[str, Any]]) -> None:
    by_method = {row["method"]: row for row in rows}
    assert by_method["none"]["plan_hash"] is None and by_method["none"]["plan_layers"] == []
    assert by_method["none"]["plan_status"] == "not_applicable" and by_method["none"]["iterations"] == 0
    assert by_method["last_layer"]["plan_hash"] and by_method["last_layer"]["iterations"] == 2
    assert by_method["raw_pixels"]["plan_layers"] is None and by_method["raw_pixels"]["fits"] == "yes"
    tiny = by_method["tinytrain"]
    assert len(tiny["plan_layers"]) == len(tiny["plan_channels"]) > 0
    assert tiny["budget_memory_bytes"] > 0 and tiny["budget_backward_macs"] > 0


def test_equal_plans_share_their_outcome(rows: list[dict[str, Any]]) -> None:
    outcomes: dict[str, set[tuple[float, float]]] = {}
    for row in rows:
        if row["plan_hash"]:
            outcomes.setdefault(row["plan_hash"], set()).add((row["accuracy_after"], row["host_ms"]))
    assert all(len(found) == 1 for found in outcomes.values())


def test_an_infeasible_plan_is_a_result(tmp_path: Path) -> None:
    settings = tiny_settings(**ONE_TASK, methods=("tinytrain",), selection=SelectionSettings(memory_bytes=1))
    result = run(settings, tmp_path)
    assert result.exit_code == ExitCode.DONE
    for row in rows_of(result.folder):
        assert_complete(row)
        assert (row["plan_status"], row["status"], row["fits"], row["signature"]) == (
            "infeasible",
            "ok",
            "no",
            "stalled",
        )
        assert "bytes" in row["plan_reason"]
        assert row["accuracy_after"] == row["accuracy_before"]


def test_a_diverged_row_has_costs_but_no_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_method(monkeypatch, Diverges("diverges"))
    result = run(tiny_settings(methods=("none", "diverges")), tmp_path)
    assert result.exit_code == ExitCode.TOO_MANY_FAILURES
    rows = [row for row in rows_of(result.folder) if row["method"] == "diverges"]
    for row in rows:
        assert_complete(row)
        assert (row["status"], row["accuracy_after"], row["message"]) == ("diverged", None, "not finite")
        assert row["loss_first"] == row["loss_last"] == 1.0 and row["latency_ms"] > 0


def test_a_task_that_raises_is_rows_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_method(monkeypatch, Raises("raises", domain="signs/test/fixed-3w2s3q/s0/0"))
    result = run(tiny_settings(methods=("none", "raises")), tmp_path)
    assert result.exit_code == ExitCode.PARTIAL and result.failed == 1
    rows = rows_of(result.folder)
    failed = [row for row in rows if row["status"] != "ok"]
    assert [(row["method"], row["device"]) for row in failed] == [("raises", device) for device in sorted(DEVICES)]
    assert len(rows) == 2 * 4 * len(DEVICES)
    for row in failed:
        assert_complete(row)
        assert (row["status"], row["message"]) == ("error", "RuntimeError: no luck")
        assert row["accuracy_after"] is None and row["fits"] is None


class Leaks(Raises):
    """Fails with words a service might answer with: a key of the environment, a password."""

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        raise RuntimeError(f"refused: {os.environ['STORE_API_KEY']} {'x' * 1960} password=hunter22")


def test_a_secret_in_an_error_is_not_in_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_API_KEY", "c0ffee-5ecret-words")
    add_method(monkeypatch, Leaks("leaks"))
    result = run(tiny_settings(methods=("leaks",), **ONE_TASK), tmp_path)
    failed = rows_of(result.folder)
    assert len(failed) == len(DEVICES)
    for row in failed:
        assert row["message"].startswith("RuntimeError: refused: [redacted] xxx") and len(row["message"]) <= 2000
    stored = b"".join(file.read_bytes() for file in result.folder.rglob("*") if file.is_file())
    assert b"c0ffee-5ecret" not in stored and b"hunter22" not in stored


@pytest.fixture
def setup() -> UnitSetup:
    return plan_run(tiny_settings()).setup


def test_a_crashed_task_has_every_row_it_would_have_had(setup: UnitSetup) -> None:
    chunk = Chunk(domain="signs", ranges=((1, 2),), cells=plan_run(tiny_settings()).grid.cells)
    found = failed_result(setup, chunk, 1, status="crashed", message="the worker died")
    assert [(r["method"], r["device"]) for r in found.rows] == [(m, d) for m, devices in chunk.cells for d in devices]
    assert {row["task_index"] for row in found.rows} == {1}
    for row in found.rows:
        assert_complete(row)
        assert (row["status"], row["message"]) == ("crashed", "the worker died")


def test_the_schema_knows_which_columns_are_never_null() -> None:
    assert [f.name for f in result_schema() if not f.nullable] == [c.name for c in COLUMNS if not c.null]


BASE = {
    "accuracy_before": 0.5,
    "accuracy_after": 0.6,
    "iterations": 2,
    "status": "ok",
    "loss_first": 1.0,
    "loss_last": 0.5,
    "plan_status": "ok",
    "selection_ms": 0.0,
    "training_ms": 1000.0,
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"accuracy_after": 0.4499}, "collapsed"),
        ({"accuracy_after": 0.46}, ""),
        ({"accuracy_after": None, "status": "diverged"}, ""),
        ({"loss_last": 1.0}, "stalled"),
        ({"plan_status": "infeasible", "iterations": 0, "loss_first": None, "loss_last": None}, "stalled"),
        ({"iterations": 0, "loss_first": None, "loss_last": None}, ""),
        ({"selection_ms": 100.0}, ""),
        ({"selection_ms": 100.1}, "selection_slow"),
        ({"selection_ms": 35_001.0, "training_ms": 1e9}, "selection_slow"),
        ({"accuracy_after": 0.1, "loss_last": 2.0, "selection_ms": 999.0}, "collapsed"),
    ],
)
def test_signatures(changes: dict[str, Any], expected: str) -> None:
    assert signature(BASE | changes) == expected


FINETUNE = {
    "iterations": 3,
    "learning_rate": 2e-4,
    "optimizer": "sgd",
    "scale": 7.0,
    "augment": False,
    "mode": "fast",
}
IN_FAST = {"numerics": "bf16", "device": "cuda"}  # where mode fast is set as well
WITHOUT_EFFECT = {"momentum": 0.5, "pool_views": 3, "curve_every": 7, "tasks_together": 3}  # of Adam, in mode reference
SELECTION = {
    "criterion": "fisher_only",
    "inspect_blocks": 3,
    "channel_ratio": 0.25,
    "side": "input",
    "on_overflow": "stop",
    "compute_share": 0.2,
    "memory_bytes": 100_000,
}
DECIDES = {
    "raw_pixels": {"resolution"},
    "none": {"resolution", *IN_FAST},
    "last_layer": {"resolution", *FINETUNE, *IN_FAST},
    "full_train": {"resolution", *FINETUNE, *IN_FAST},
    "tinytrain": {"resolution", *FINETUNE, *IN_FAST, *SELECTION},
}


@pytest.mark.parametrize("method", sorted(DECIDES))
def test_the_variant_changes_with_what_decides_the_outcome_and_nothing_else(method: str, setup: UnitSetup) -> None:
    plain = variant_of(METHODS[method], setup)
    changed: dict[str, UnitSetup] = {"resolution": replace(setup, resolution=48)}
    changed |= {
        k: replace(setup, finetune=replace(FineTuneSettings(iterations=2), **{k: v})) for k, v in FINETUNE.items()
    }
    changed |= {k: replace(setup, selection=replace(setup.selection, **{k: v})) for k, v in SELECTION.items()}
    fast = FineTuneSettings(iterations=2, mode="fast")
    in_fast = {k: [replace(setup, finetune=f) for f in (fast, replace(fast, **{k: v}))] for k, v in IN_FAST.items()}  # type: ignore[arg-type]
    changed["devices"] = replace(setup, profiles=setup.profiles[:1])
    changed |= {k: replace(setup, finetune=replace(setup.finetune, **{k: v})) for k, v in WITHOUT_EFFECT.items()}
    deciding = {key for key, other in changed.items() if variant_of(METHODS[method], other) != plain}
    deciding |= {key for key, pair in in_fast.items() if len({variant_of(METHODS[method], x) for x in pair}) == 2}
    assert deciding == DECIDES[method]


@pytest.mark.parametrize(("where", "key"), [({"optimizer": "sgd"}, "momentum"), ({"mode": "fast"}, "pool_views")])
def test_what_only_some_settings_use_decides_there(where: dict[str, Any], key: str, setup: UnitSetup) -> None:
    plain = FineTuneSettings(**where)
    other = replace(plain, **{key: WITHOUT_EFFECT[key]})
    variants = {variant_of(METHODS["last_layer"], replace(setup, finetune=f)) for f in (plain, other)}
    assert len(variants) == 2


def test_the_row_says_the_mode(tmp_path: Path) -> None:
    settings = tiny_settings(**ONE_TASK, methods=("none",), finetune=FineTuneSettings(iterations=2, mode="fast"))
    assert {(row["mode"], row["accuracy_numerics"]) for row in rows_of(run(settings, tmp_path).folder)} == {
        ("fast", "fp32")
    }


@pytest.mark.skipif(not numerics.has_bf16(), reason="the CPU has no instructions for bf16")
def test_the_row_and_the_identity_say_the_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = FineTuneSettings(iterations=2, mode="fast")
    in_single, in_half = (
        tiny_settings(**ONE_TASK, methods=("none", "last_layer"), finetune=replace(single, numerics=arithmetic))
        for arithmetic in ("fp32", "bf16")
    )
    folder = run(in_half, tmp_path, run_id="one").folder
    rows = rows_of(folder)
    assert {(row["mode"], row["accuracy_numerics"], row["status"]) for row in rows} == {("fast", "bf16", "ok")}
    with pytest.raises(RunLockedError, match="numerics: 'bf16' there, 'fp32' asked"):
        run(in_single, tmp_path, run_id="one")
    assert main(["replay", str(folder), "--task", rows[0]["task_id"]]) == ExitCode.DONE, "the same arithmetic"
    plan = plan_run(in_half)
    monkeypatch.setattr(numerics, "has_bf16", lambda: False)
    with pytest.raises(ConfigError, match=r"finetune\.numerics"):
        run(in_half, tmp_path, run_id="two")
    network, spec = network_of(plan.setup, plan.weights), plan.setup.spec("signs", 0)
    with pytest.raises(MachineError, match=r"finetune\.numerics"):  # another CPU: neither other numbers nor a row
        Unit(spec, network=network, setup=plan.setup, attempt=1).run(plan.grid.cells)


def test_the_identity_and_the_variant_say_a_gpu_and_nothing_of_the_cpu(tmp_path: Path, setup: UnitSetup) -> None:
    """Runs that are older than the setting keep their names."""
    plan = plan_run(tiny_settings(**ONE_TASK))
    assert "device" not in plan.identity["finetune"]
    on_gpu = FineTuneSettings(iterations=2, mode="fast", device="cuda")
    asked = plan_run(tiny_settings(**ONE_TASK, finetune=on_gpu)).identity  # a driver needs no GPU of its own
    assert asked["finetune"]["device"] == "cuda"
    assert "-cuda-" in variant_of(METHODS["last_layer"], replace(setup, finetune=on_gpu))
    fast = FineTuneSettings(iterations=2, mode="fast")
    run(tiny_settings(**ONE_TASK, methods=("none",), finetune=fast), tmp_path, run_id="one")
    with pytest.raises(RunLockedError, match=r"finetune\.device: None there, 'cuda' asked"):
        check_identity(open_storage(tmp_path / "one"), asked)


def test_a_variant_is_readable_and_short(setup: UnitSetup) -> None:
    assert variant_of(METHODS["tinytrain"], setup).startswith(f"full-r0.5-lr{setup.finetune.learning_rate}-k2-")


def test_every_distinct_plan_is_tuned_once_and_the_earliest_cut_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of ``adapter_drop_75`` starts at its block's first layer, below its plan's earliest one."""
    tuned: list[str] = []
    cuts: list[int] = []

    class Watched(PlanWeights):
        def __init__(self, network: FoldedNetwork, plan: UpdatePlan) -> None:
            tuned.append(plan.hash)
            cuts.append(fine_tuning.pass_start(plan, network.graph))
            super().__init__(network, plan)

    monkeypatch.setattr(fine_tuning, "PlanWeights", Watched)
    layer = layer_graph("mobilenet_v2_w0.1").block_layers(13)[1].index  # inside the first block with a module left
    methods = ("last_layer", f"layer_alone_{layer}", "adapter_drop_75", "full_train", "tinytrain")
    result = run(tiny_settings(domains=("signs",), num_tasks=1, methods=methods), tmp_path)
    rows = rows_of(result.folder)
    assert len(rows) == len(methods) * len(DEVICES)
    assert sorted(tuned) == sorted({row["plan_hash"] for row in rows}) and len(tuned) < len(rows)
    assert cuts == sorted(cuts) and len(set(cuts)) >= 4
