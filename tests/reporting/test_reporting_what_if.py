"""What-ifs against the truth: a real run with a device taken out must answer what that device's rows said."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.costs.profile_files import load_profile
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.execution.settings import ExecutorSettings
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.planner import answer
from tinytrain_dist.reporting.questions import Questions, WhatIfQuestion, targets_of
from tinytrain_dist.reporting.reading import read_run
from tinytrain_dist.reporting.runs import RunResults, open_run
from tinytrain_dist.reporting.tuning_command import tuning_commands
from tinytrain_dist.reporting.what_if import WhatIf, what_if, with_ram
from tinytrain_dist.reporting.what_if_cells import Target
from tinytrain_dist.simulation.engine import simulate
from tinytrain_dist.simulation.schema import result_schema
from tinytrain_dist.simulation.settings import SimulationSettings
from tinytrain_dist.verbs.compose import compose_job

pytestmark = pytest.mark.slow  # one real simulation of a few seconds, shared by the module
DEVICES = ("nrf52840", "stm32f746", "stm32h743", "raspberry_pi_4b")
LEFT_OUT = ("attempt", "host_ms", "plan_reason", "budget_memory_bytes")
Rows = dict[tuple[str, str, str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four methods on devices whose budgets lead to different plans."""
    settings = SimulationSettings(
        domains=("signs", "flags"), num_tasks=2, episodes=EpisodeSettings(way=3, shot=2, query=3), resolution=64,
        backbone="mobilenet_v2", methods=("raw_pixels", "none", "full_train", "tinytrain"), devices=DEVICES,
        finetune=FineTuneSettings(iterations=1, curve_every=1), selection=SelectionSettings(inspect_blocks=4),
    )  # fmt: skip
    root = tmp_path_factory.mktemp("runs")
    config = {"command": "tinytrain simulate experiment=quickstart devices.names=[stm32f746]"}
    return simulate(settings, root=root, executor=ExecutorSettings(kind="serial"), config=config).folder


def without(folder: Path, device: str, to: Path) -> RunResults:
    """The run as if ``device`` had not been in it: its rows are gone, plans tuned for it alone are not known."""
    table = pq.read_table(folder / "results")
    kept = table.filter(pc.not_equal(table["device"], device))
    (to / "results").mkdir(parents=True)
    pq.write_table(kept.cast(result_schema()), to / "results" / "part.parquet")
    for name in ("plans", "fisher", "curves"):
        (to / name).symlink_to(folder / name)
    (to / "run.json").write_text((folder / "run.json").read_text())
    return open_run(to)


def rows_of(source: Path | RunResults, device: str) -> Rows:
    table: pa.Table = (
        pq.read_table(source / "results") if isinstance(source, Path)
        else source.connection.sql("SELECT * FROM stored").to_arrow_table()
    )  # fmt: skip
    return {
        (r["task_id"], r["checkpoint"], r["method"], r["variant"]): r
        for r in table.to_pylist()
        if r["device"] == device
    }


def same(found: Any, expected: Any) -> bool:
    if isinstance(found, float) and isinstance(expected, float):
        return found == pytest.approx(expected, rel=1e-9)
    return bool(found == expected)


def ask(run: RunResults, *profiles: DeviceProfile) -> WhatIf:
    return what_if(run, [Target(profile=p, label=p.name, device=p.name) for p in profiles])


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_taken_out_is_answered_as_it_was(folder: Path, tmp_path: Path, device: str) -> None:
    truth = rows_of(folder, device)
    run = without(folder, device, tmp_path / "run")
    tuned = {(r["task_id"], r["plan_hash"]) for r in run.select("SELECT task_id, plan_hash FROM stored")}
    found = ask(run, load_profile(device))
    answered = rows_of(found.run, device)
    for key, row in answered.items():
        apart = {n: (row[n], v) for n, v in truth[key].items() if n not in LEFT_OUT
                 and not same(row[n], v)}  # fmt: skip
        assert not apart, (key, apart)
    open_cells = {key for key, row in truth.items() if row["plan_hash"] and (key[0], row["plan_hash"]) not in tuned}
    assert truth.keys() - answered.keys() == open_cells
    assert sum(found.needs_tuning.values()) == len(open_cells) and found.untold == 0


def test_the_devices_chose_different_plans(folder: Path) -> None:
    """Otherwise the test above would say nothing about choosing."""
    chosen = [{r["plan_hash"] for r in rows_of(folder, d).values() if r["method"] == "tinytrain"} for d in DEVICES]
    assert any(a != b for a in chosen for b in chosen)


def test_a_cap_on_ram_swaps_or_shrinks_or_locks_out(folder: Path) -> None:
    run = open_run(folder)
    question = WhatIfQuestion(max_ram_bytes=64 * 1024)
    targets, notes = targets_of(run, question)
    assert notes == [] and {t.profile.ram_bytes for t in targets} == {64 * 1024}
    document = answer(run, Questions(what_if=question))
    full = [e for e in document["fits"] if e["method"] == "full_train"]
    assert {e["fits_share"] for e in full} == {0.0} and {e["limiting"] for e in full} == {"ram"}
    assert all("[RAM 64 KiB]" in e["device"] for e in document["fits"])
    commands = document["what_if"]["commands"]
    for entry in document["what_if"]["needs_tuning"]:
        assert entry["tasks"] > 0
    assert bool(commands) == bool(document["what_if"]["needs_tuning"])


def test_the_command_names_a_grid_that_extends_the_run(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The words are a configuration Hydra takes; the profile it writes first can be loaded."""
    run = open_run(folder)
    profile = load_profile("stm32f746")
    own = with_ram(profile, ram_bytes=131072)
    targets = [
        Target(profile=own, label="stm32f746 [RAM 128 KiB]", device="stm32f746"),
        Target(profile=load_profile("rp2040"), label="rp2040", device="rp2040"),
    ]
    made, written, command = tuning_commands(run, targets)
    assert made == "mkdir -p what_if_devices" and written.endswith("> what_if_devices/stm32f746--ram131072.yaml")
    monkeypatch.chdir(tmp_path)
    folder_of = tmp_path / "what_if_devices"
    folder_of.mkdir()
    text = written.removeprefix("printf '").split("' >")[0].replace("\\n", "\n")
    (folder_of / "stm32f746--ram131072.yaml").write_text(text)
    loaded = load_profile("stm32f746--ram131072", [folder_of])
    assert loaded.ram_bytes == 131072 and loaded.clock_hz == profile.clock_hz
    words = shlex.split(command)
    assert words[:2] == ["tinytrain", "simulate"]
    config = compose_job(words[2:])
    assert config.devices.names == [*sorted(DEVICES), "stm32f746--ram131072", "rp2040"]
    assert config.devices.dirs == ["what_if_devices"]


def test_prices_that_are_not_reproduced_are_refused(folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "results")
    slower = table.set_column(table.schema.get_field_index("latency_ms"), table.schema.field("latency_ms"),
                              pc.multiply(table["latency_ms"], 1.01))  # fmt: skip
    (tmp_path / "results").mkdir()
    pq.write_table(slower, tmp_path / "results" / "part.parquet")
    (tmp_path / "plans").symlink_to(folder / "plans")
    (tmp_path / "run.json").write_text((folder / "run.json").read_text())
    with pytest.raises(ConfigError, match="is not reproduced"):
        ask(open_run(tmp_path), load_profile("rp2040"))


def test_what_a_what_if_needs_is_named(folder: Path, tmp_path: Path) -> None:
    bare = without(folder, "none of them", tmp_path / "run")
    (tmp_path / "run" / "plans").unlink()
    with pytest.raises(ConfigError, match="stored no plans"):
        ask(bare, load_profile("rp2040"))
    record = json.loads((folder / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"identity": {}}))
    with pytest.raises(ConfigError, match="does not say how the run was tuned"):
        ask(open_run(tmp_path / "run"), load_profile("rp2040"))


def test_without_fisher_information_open_cells_are_untold(folder: Path, tmp_path: Path) -> None:
    run = without(folder, "nrf52840", tmp_path / "run")
    (tmp_path / "run" / "fisher").unlink()
    found = ask(run, load_profile("nrf52840"))
    assert found.untold == sum(found.needs_tuning.values()) == 4
    assert any("cannot tell the plan" in note for note in found.notes)


def test_fisher_information_that_is_no_number_tells_no_plan(folder: Path, tmp_path: Path) -> None:
    run = without(folder, "nrf52840", tmp_path / "run")
    table = pa.concat_tables([pq.read_table(file) for file in (folder / "fisher").rglob("*.parquet")])
    spoilt = [r | {"delta": [float("inf"), *r["delta"][1:]]} if r["layer"] == 51 else r for r in table.to_pylist()]
    (tmp_path / "run" / "fisher").unlink()
    (tmp_path / "run" / "fisher").mkdir()
    pq.write_table(pa.Table.from_pylist(spoilt, schema=table.schema), tmp_path / "run" / "fisher" / "0.parquet")
    found = ask(run, load_profile("nrf52840"))
    assert found.untold == sum(found.needs_tuning.values()) == 4


def test_an_unfinished_run_shows_the_shards_that_count(folder: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    for name in ("shards", "plans", "journal", "manifest.json"):
        (unfinished / name).symlink_to(folder / name)
    record = json.loads((folder / "run.json").read_text())
    (unfinished / "run.json").write_text(json.dumps(record))
    bereft = read_run(unfinished)
    assert bereft.exit_code == ExitCode.PARTIAL and "result files are gone" in bereft.notes[0]
    (unfinished / "run.json").write_text(json.dumps(record | {"status": "running"}))
    reading = read_run(unfinished)
    assert reading.exit_code == ExitCode.PARTIAL and "unfinished: 4 of 4 tasks" in reading.notes[0]
    assert reading.run.num_rows == bereft.run.num_rows == pq.read_table(folder / "results").num_rows
    finished = read_run(folder)
    assert finished.exit_code == ExitCode.DONE and finished.notes == []
    assert comparison_table(reading.run) == comparison_table(finished.run)
