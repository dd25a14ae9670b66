"""Trouble of a machine: it is tried elsewhere or ends the run, and is never stored as what a task came to."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_simulation import LastLayerLike, add_method, chunks_of, rows_of, run, tiny_settings

from tinytrain_dist.adaptation.fine_tuning import Adaptation
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.foundation.errors import ConfigError, DataError, ExitCode, StorageError
from tinytrain_dist.graphs.update_plan import UpdatePlan
from tinytrain_dist.simulation.plan_run import plan_run
from tinytrain_dist.simulation.request import Chunk
from tinytrain_dist.simulation.settings import DispatchSettings
from tinytrain_dist.simulation.unit import MachineError
from tinytrain_dist.simulation.worker import run_chunk


class Troubled(LastLayerLike):
    """Raises what it is given."""

    def __init__(self, error: Exception) -> None:
        super().__init__("troubled")
        self.error = error

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        raise self.error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StorageError("not mounted")])
def test_trouble_of_a_machine_ends_the_run_and_is_no_row(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(num_tasks=1, domains=("signs",), methods=("troubled",), dispatch=chunks_of(0.001))
    add_method(monkeypatch, Troubled(error))
    with pytest.raises(MachineError, match=re.escape(str(error))) as caught:
        run(settings, tmp_path, run_id="mine")
    assert caught.value.exit_code == ExitCode.STORAGE
    assert not list((tmp_path / "mine").glob("shards/*"))
    add_method(monkeypatch, Troubled(DataError("an image that cannot be decoded")))
    found = run(settings, tmp_path, run_id="mine")
    assert found.exit_code != ExitCode.DONE, "a task's own trouble is its row"
    assert {row["message"] for row in rows_of(found.folder)} == {"DataError: an image that cannot be decoded"}


def test_a_machine_with_other_data_says_so_and_computes_nothing(tmp_path: Path) -> None:
    plan = plan_run(tiny_settings(methods=("raw_pixels",)))
    for domain, said in (("signs", "the run is of"), ("sings", "unknown domain")):
        chunk = Chunk(domain=domain, ranges=((0, 1),), cells=plan.grid.cells)
        setup = replace(plan.setup, run_folder=str(tmp_path), domain_hashes=((domain, "0" * 16),))
        with pytest.raises(StopIteration) as end:
            next(run_chunk(plan.weights, setup, chunk))
        assert isinstance(end.value.value, DataError) and said in str(end.value.value)
    assert not (tmp_path / "shards").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_the_gpu_says_so_and_computes_nothing(tmp_path: Path) -> None:
    """A cluster may claim a GPU that PyTorch cannot use; a machine that runs a serial driver is asked first."""
    settings = tiny_settings(methods=("last_layer",), finetune=FineTuneSettings(mode="fast", device="cuda"))
    plan = plan_run(settings)
    chunk = Chunk(domain="signs", ranges=((0, 1),), cells=plan.grid.cells)
    with pytest.raises(StopIteration) as end:
        next(run_chunk(plan.weights, replace(plan.setup, run_folder=str(tmp_path)), chunk))
    assert isinstance(end.value.value, MachineError)
    assert re.search(r": finetune\.device: found cuda, but torch .* sees no GPU", str(end.value.value))
    with pytest.raises(ConfigError, match=r"finetune\.device: found cuda"):
        run(settings, tmp_path, run_id="mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("launch failed")]
)
def test_a_gpu_that_is_full_or_broken_is_the_machines_trouble(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(num_tasks=1, domains=("signs",), methods=("troubled",), dispatch=chunks_of(0.001))
    add_method(monkeypatch, Troubled(error))
    with pytest.raises(MachineError, match=re.escape(str(error))):
        run(settings, tmp_path, run_id="mine")


class Deadly(LastLayerLike):
    """Kills its process on one task."""

    def adapt(self, task: TargetTask, plan: UpdatePlan) -> Adaptation:
        if task.task_id.endswith("/2"):
            os.kill(os.getpid(), signal.SIGKILL)
        return Adaptation(accuracy_before=0.5, accuracy_after=0.5, losses=(1.0, 0.5))


def test_a_task_that_kills_a_serial_driver_becomes_a_row_and_not_the_end_of_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_method(monkeypatch, Deadly("deadly"))
    settings = tiny_settings(
        num_tasks=5,
        domains=("signs",),
        methods=("deadly",),
        dispatch=DispatchSettings(chunk_seconds=1e3, max_attempts=2),
    )
    ends = []
    while len(ends) < 6 and (not ends or ends[-1] != 0):
        child = os.fork()
        if child == 0:
            os._exit(int(run(settings, tmp_path, run_id="mine").exit_code != ExitCode.PARTIAL))
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert ends == [-signal.SIGKILL] * 3 + [0], "in company, alone twice, and then never again"
    rows = {row["task_index"]: row for row in rows_of(tmp_path / "mine")}
    assert {index for index, row in rows.items() if row["status"] == "crashed"} == {2} and len(rows) == 5
    assert rows[2]["message"] == "2 processes that computed this task alone died"
    assert not (tmp_path / "mine" / "attempt.json").exists()
