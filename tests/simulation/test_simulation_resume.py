"""The same command resumes, a larger grid extends, a changed identity is refused; damage is found and mended."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tiny_simulation import DEVICES, Raises, add_method, chunks_of, rows_of, run, tiny_settings

from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.costs.schemes import Scheme
from tinytrain_dist.data.episodes import EpisodeSettings
from tinytrain_dist.foundation.errors import (
    ConfigError,
    ExitCode,
    RunLockedError,
    TooManyFailuresError,
)
from tinytrain_dist.foundation.paths import resource_folder
from tinytrain_dist.foundation.storage import local, open_storage
from tinytrain_dist.simulation import engine, unit, worker
from tinytrain_dist.simulation import settings as run_settings
from tinytrain_dist.simulation.computing import Computation
from tinytrain_dist.simulation.engine import SimulationResult
from tinytrain_dist.simulation.lock import run_lock
from tinytrain_dist.simulation.manifest_snapshot import MANIFEST_VERSION
from tinytrain_dist.simulation.schema import KEY_COLUMNS
from tinytrain_dist.simulation.settings import DispatchSettings
from tinytrain_dist.simulation.store import RunStore

QUICK = {"methods": ("none", "tinytrain"), "dispatch": chunks_of(0.001)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SimulationResult:
    return run(tiny_settings(**QUICK), tmp_path_factory.mktemp("finished"))


@pytest.fixture
def first(finished: SimulationResult, tmp_path: Path) -> SimulationResult:
    """Return a finished run of this test's own: a run directory may be moved."""
    return replace(finished, location=str(shutil.copytree(finished.folder, tmp_path / finished.folder.name)))


def document(result: SimulationResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((result.folder / "run.json").read_text())
    return found


def shard_names(result: SimulationResult) -> set[str]:
    return {path.name for path in (result.folder / "shards").iterdir()}


def assert_no_double_keys(result: SimulationResult) -> None:
    keys = [tuple(row[name] for name in KEY_COLUMNS) for row in rows_of(result.folder)]
    assert len(keys) == len(set(keys)) == result.rows


def test_the_run_directory_is_as_documented(first: SimulationResult) -> None:
    names = {path.name for path in first.folder.iterdir()}
    assert names == {
        "run.json", "tasks.parquet", "shards", "manifest.json", "journal", "results", "plans",
        "fisher", "failures.parquet", "status.json", "log.jsonl", "_SUCCESS",
    }  # fmt: skip
    found = document(first)
    assert (found["kind"], found["status"], found["exit_code"]) == ("simulate", "finished", 0)
    assert found["result_hash"] == first.result_hash and found["run_id"] == first.folder.name
    assert {"seed", "episodes", "checkpoint", "finetune", "selection", "domain_hashes"} <= set(found["identity"])
    assert found["grid"]["num_tasks"] == 2 and sorted(found["grid"]["devices"]) == sorted(DEVICES)
    assert {"tinytrain_dist", "torch", "python"} <= set(found["versions"])
    tasks = pq.read_table(first.folder / "tasks.parquet").to_pylist()
    assert [t["task_id"] for t in tasks] == sorted({row["task_id"] for row in rows_of(first.folder)})
    assert all(t["support_size"] == 6 and t["shots"] == [2, 2, 2] for t in tasks)
    assert pq.read_table(first.folder / "failures.parquet").num_rows == 0


def test_plans_and_fisher_information_are_kept(first: SimulationResult) -> None:
    plans = {row["plan_hash"]: json.loads(row["plan"]) for row in pq.read_table(first.folder / "plans").to_pylist()}
    used = {row["plan_hash"] for row in rows_of(first.folder) if row["plan_hash"]}
    assert used == set(plans)
    fisher = pq.read_table(first.folder / "fisher").to_pylist()
    assert {row["task_id"] for row in fisher} == {row["task_id"] for row in rows_of(first.folder)}
    assert all(row["potential"] == pytest.approx(sum(row["delta"])) for row in fisher)


def test_the_same_command_computes_nothing(first: SimulationResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "Computation", None)  # would raise
    again = run(tiny_settings(**QUICK), first.folder.parent)
    assert (again.computed, again.reused, again.result_hash) == (0, 4, first.result_hash)
    assert again.folder == first.folder


@pytest.mark.parametrize("seconds", [0.15, 1000.0])
def test_any_chunk_size_gives_the_same_result(first: SimulationResult, tmp_path: Path, seconds: float) -> None:
    other = run(tiny_settings(**(QUICK | {"dispatch": chunks_of(seconds)})), tmp_path / "other")
    assert other.result_hash == first.result_hash
    assert other.folder.name == first.folder.name


@pytest.mark.parametrize(
    ("larger", "computed"),
    [
        ({"num_tasks": 3}, {"tasks": 2, "rows": 2 * 2 * 3}),
        ({"methods": ("none", "tinytrain", "raw_pixels")}, {"tasks": 4, "rows": 4 * 3}),
        ({"devices": (*DEVICES, "esp32_s3")}, {"tasks": 4, "rows": 4 * 2}),
        ({"domains": ("signs", "flags", "clipart")}, {"tasks": 2, "rows": 2 * 2 * 3}),
    ],
)
@pytest.mark.slow
def test_a_larger_grid_computes_only_what_is_new(
    first: SimulationResult, tmp_path: Path, larger: dict[str, Any], computed: dict[str, int]
) -> None:
    before = shard_names(first)
    settings = tiny_settings(**(QUICK | larger))
    extended = run(settings, first.folder.parent)
    assert extended.folder == first.folder
    assert extended.computed == computed["tasks"]
    assert extended.rows == first.rows + computed["rows"]
    assert before < shard_names(extended)
    assert_no_double_keys(extended)
    assert extended.result_hash == run(settings, tmp_path / "fresh").result_hash
    assert run(tiny_settings(**QUICK), first.folder.parent).rows == extended.rows  # the smaller request loses nothing
    grid = document(first)["grid"]
    assert grid["num_tasks"] == settings.num_tasks and set(grid["domains"]) == set(settings.domains)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "seed: 0 there, 1 asked"),
        ({"finetune": FineTuneSettings(iterations=3)}, "finetune.iterations: 2 there, 3 asked"),
        ({"resolution": 48}, "resolution: 32 there, 48 asked"),
        ({"episodes": EpisodeSettings(way=4, shot=2, query=3)}, "episodes.way: 3 there, 4 asked"),
    ],
)
@pytest.mark.slow
def test_a_changed_identity_is_refused_by_key_and_starts_elsewhere(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    small = {"num_tasks": 1, "methods": ("raw_pixels",)}
    first = run(tiny_settings(**small), tmp_path, run_id="mine")
    settings = tiny_settings(**(small | changes))
    with pytest.raises(RunLockedError) as caught:
        run(settings, tmp_path, run_id="mine")
    assert caught.value.exit_code == ExitCode.LOCKED
    assert key in str(caught.value) and "force_new" in str(caught.value)
    forced = run(settings, tmp_path, run_id="mine", force_new=True)
    assert forced.folder.name == "mine-2" and document(first)["identity"]["seed"] == 0
    assert run(settings, tmp_path).folder.name != first.folder.name  # derived ids never meet


def test_another_default_scheme_or_initialization_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tiny_settings(num_tasks=1, methods=("raw_pixels",))
    run(small, tmp_path, run_id="mine")
    with monkeypatch.context() as patch:
        other = Scheme(backbone=small.backbone, input_shares=(), num_last_biases=1)
        patch.setattr(run_settings, "default_scheme", lambda backbone: other)
        with pytest.raises(RunLockedError, match=f"default_scheme: .* there, '{other.hash}' asked"):
            run(small, tmp_path, run_id="mine")
    path = tmp_path / "mine" / "run.json"
    path.write_text(path.read_text().replace('"initialization": "random"', '"initialization": "pretrained"'))
    with pytest.raises(RunLockedError, match="initialization: 'pretrained' there, 'random' asked"):
        run(small, tmp_path, run_id="mine")


def test_rows_of_another_kind_of_machine_are_mixed_in_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small = tiny_settings(num_tasks=1, methods=("raw_pixels",))
    first = run(small, tmp_path)
    (here,) = document(first)["computed_on"]
    assert here.startswith(f"torch {document(first)['versions']['torch']}")
    assert "last digits may differ" not in caplog.text
    monkeypatch.setattr(worker, "kind_of_machine", lambda: "torch 1.0, abacus")
    larger = run(replace(small, num_tasks=2), tmp_path)
    assert document(larger)["computed_on"] == sorted([here, "torch 1.0, abacus"])
    assert caplog.text.count("last digits may differ") == 1


def test_changed_images_of_a_domain_are_refused_even_after_other_domains(tmp_path: Path) -> None:
    settings = tiny_settings(num_tasks=1, methods=("raw_pixels",), domains=("signs",))
    first = run(settings, tmp_path)
    run(replace(settings, domains=("flags",)), tmp_path)
    assert set(document(first)["identity"]["domain_hashes"]) == {"signs", "flags"}
    found = document(first)
    found["identity"]["domain_hashes"]["signs"] = "0" * 16
    (first.folder / "run.json").write_text(json.dumps(found))
    with pytest.raises(RunLockedError, match=r"domain_hashes\.signs"):
        run(settings, tmp_path)


def test_watching_more_closely_changes_no_identity(tmp_path: Path) -> None:
    small = {"num_tasks": 1, "methods": ("none",)}
    first = run(tiny_settings(**small), tmp_path)
    closer = tiny_settings(**small, finetune=FineTuneSettings(iterations=2, curve_every=1))
    assert run(closer, tmp_path).folder == first.folder


def test_a_folder_with_another_kind_of_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text(json.dumps({"kind": "meta-train", "identity": {}}))
    with pytest.raises(RunLockedError, match="kind 'meta-train'"):
        run(tiny_settings(), tmp_path, run_id="mine")


def profile_in(folder: Path, **changes: Any) -> None:
    folder.mkdir(exist_ok=True)
    raw = yaml.safe_load((resource_folder("device_profiles") / "stm32f746.yaml").read_text())
    (folder / "stm32f746.yaml").write_text(yaml.safe_dump(raw | changes))


def test_a_changed_profile_prices_its_rows_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = tiny_settings(num_tasks=1, methods=("none",), device_dirs=(str(tmp_path / "devices"),))
    profile_in(tmp_path / "devices")
    first = run(settings, tmp_path / "runs")
    ram = {row["device"]: row["ram_margin_bytes"] for row in rows_of(first.folder)}
    assert run(settings, tmp_path / "runs").computed == 0
    profile_in(tmp_path / "devices", ram_bytes=400_000)
    changed = run(settings, tmp_path / "runs")
    assert changed.folder == first.folder and changed.computed == 2 and changed.rows == first.rows
    now = {row["device"]: row["ram_margin_bytes"] for row in rows_of(changed.folder)}
    assert {device for device in DEVICES if ram[device] != now[device]} == {"stm32f746"}
    assert_no_double_keys(changed)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize("folder", ["shards", "plans", "fisher"])
def test_a_damaged_shard_is_computed_again(first: SimulationResult, how: str, folder: str) -> None:
    damage(sorted((first.folder / folder).iterdir())[0], how)
    again = run(tiny_settings(**QUICK), first.folder.parent)
    assert (again.computed, again.reused) == (1, 3)
    assert again.result_hash == first.result_hash
    assert_no_double_keys(again)


def test_shards_no_manifest_names_never_count(first: SimulationResult) -> None:
    orphan = first.folder / "shards" / f"{'0' * 20}-00000000.parquet"
    orphan.write_bytes(sorted((first.folder / "shards").iterdir())[0].read_bytes())
    (first.folder / "shards" / ".half.parquet.tmp").write_bytes(b"PAR1")
    again = run(tiny_settings(**QUICK), first.folder.parent)
    assert again.computed == 0 and again.result_hash == first.result_hash
    assert not orphan.exists()
    assert len(shard_names(again)) == 4


class Killed(BaseException):
    """Stands for SIGKILL: no clean-up of ours catches it."""


@pytest.mark.parametrize("writes", [1, 2, 4, 6, 9, 12])
def test_a_crash_at_any_write_leaves_a_run_that_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Each write is an old or a new file; the run dies between two of them and is started again."""
    settings = tiny_settings(domains=("signs",), methods=("raw_pixels",), dispatch=chunks_of(0.001))
    undisturbed = run(settings, tmp_path / "undisturbed")
    left = writes

    def dying(path: Path, data: bytes, *, original: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        return original(path, data)

    with monkeypatch.context() as patch:
        for name in ("atomic_write", "atomic_create"):
            patch.setattr(local, name, partial(dying, original=getattr(local, name)))
        try:
            run(settings, tmp_path / "runs")
        except Killed:
            assert not list((tmp_path / "runs").glob("*/_SUCCESS"))
    resumed = run(settings, tmp_path / "runs")
    assert resumed.result_hash == undisturbed.result_hash
    assert (resumed.folder / "_SUCCESS").exists()
    assert_no_double_keys(resumed)


def test_a_damaged_manifest_is_found_again_and_one_of_another_version_refused(first: SimulationResult) -> None:
    path = first.folder / "manifest.json"
    for text in ("{", "[]", '{"schema_version": 3}', path.read_text().replace('"generation": ', '"generation": 1')):
        path.write_text(text)
        again = run(tiny_settings(**QUICK), first.folder.parent)
        assert (again.computed, again.result_hash) == (0, first.result_hash)
    for version in (1, MANIFEST_VERSION + 1):
        path.write_text(json.dumps({"schema_version": version}))
        with pytest.raises(RunLockedError, match=f"schema version {version}; this program writes {MANIFEST_VERSION}"):
            run(tiny_settings(**QUICK), first.folder.parent)


def test_a_second_attempt_at_a_chunk_counts_once(first: SimulationResult) -> None:
    held = RunStore(open_storage(first.folder))
    held.open()
    before = list(held.records())
    assert held.add(replace(before[0][1], name="another", rows=999)) is False
    held.commit()
    assert list(held.records()) == before


def test_a_run_that_lacks_tasks_is_never_called_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "add", lambda self, record: False)
        with pytest.raises(AssertionError, match="2 tasks are missing although everything was computed"):
            run(tiny_settings(num_tasks=1, methods=("raw_pixels",)), tmp_path, run_id="mine")
    assert not (tmp_path / "mine" / "_SUCCESS").exists()


def test_a_shard_that_lacks_rows_of_its_chunk_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = unit.Unit.run

    def forgetful(*args: Any) -> unit.UnitResult:
        result = original(*args)
        result.rows.pop()
        return result

    monkeypatch.setattr(unit.Unit, "run", forgetful)
    with pytest.raises(AssertionError, match=r"shard .* for Chunk"):
        run(tiny_settings(num_tasks=1, methods=("raw_pixels",)), tmp_path)


def test_a_held_run_is_refused_and_left_alone(first: SimulationResult) -> None:
    before = document(first)
    with run_lock(first.folder), pytest.raises(RunLockedError, match="held by process"):
        run(tiny_settings(**QUICK), first.folder.parent)
    assert document(first) == before


def test_too_many_failures_stop_early_and_the_rest_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_method(monkeypatch, Raises("raises"))
    settings = tiny_settings(num_tasks=20, domains=("signs",), methods=("raises",), dispatch=chunks_of(0.001))
    with pytest.raises(TooManyFailuresError, match=r"10 of 10 tasks failed.*max_failed_share = 0\.5") as caught:
        run(settings, tmp_path, run_id="mine")
    assert caught.value.exit_code == ExitCode.TOO_MANY_FAILURES
    folder = tmp_path / "mine"
    assert not (folder / "_SUCCESS").exists() and not (folder / "lock.json").exists()
    assert json.loads((folder / "run.json").read_text())["exit_code"] == 6
    assert pq.read_table(folder / "failures.parquet")["message"].to_pylist() == ["RuntimeError: no luck"] * 30
    tolerant = replace(settings, dispatch=DispatchSettings(max_failed_share=1.0))
    finished = run(tolerant, tmp_path, run_id="mine")
    assert (finished.computed, finished.failed, finished.exit_code) == (10, 20, ExitCode.PARTIAL)


def test_an_interrupt_leaves_a_resumable_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(**QUICK)
    calls = 0

    def interrupted(*args: Any, original: Any = Computation.enter) -> None:
        nonlocal calls
        calls += 1
        original(*args)
        if calls == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Computation, "enter", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(settings, tmp_path, run_id="mine")
    found = json.loads((tmp_path / "mine" / "run.json").read_text())
    assert (found["status"], found["exit_code"]) == ("stopped", 130)
    resumed = run(settings, tmp_path, run_id="mine")
    assert (resumed.computed, resumed.reused) == (2, 2)
    assert resumed.result_hash == run(settings, tmp_path / "other").result_hash


@pytest.mark.parametrize("changes", [{"domains": ()}, {"devices": ()}, {"methods": ("none", "none")}, {"num_tasks": 0}])
def test_an_empty_or_doubled_request_is_refused(changes: dict[str, Any]) -> None:
    (key,) = changes
    with pytest.raises(ConfigError, match=key):
        tiny_settings(**changes)


def test_a_run_id_cannot_lead_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run id"):
        run(tiny_settings(), tmp_path / "runs", run_id="../elsewhere")
    assert not (tmp_path / "elsewhere").exists()
