"""Units that make their steps together, as on a GPU: the rows are those of units on their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_simulation import LastLayerLike, add_method, chunks_of, rows_of, run, tiny_settings

from tinytrain_dist.adaptation.fine_tuning import EpisodeObjective, Objective
from tinytrain_dist.adaptation.joint_tuning import JointTuning
from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.adaptation.task import TargetTask
from tinytrain_dist.backbones.network import LayerState
from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.simulation import worker
from tinytrain_dist.simulation.plan_run import plan_run
from tinytrain_dist.simulation.request import Chunk
from tinytrain_dist.simulation.unit import StoredTask

FAST = FineTuneSettings(iterations=3, mode="fast", pool_views=2, curve_every=1)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let workers run as on a GPU, four units at a time; return how many tasks made their steps together."""
    found: list[int] = []
    together = JointTuning.run

    def watched(self: JointTuning) -> Any:
        found.append(len(self._tunings))
        return together(self)

    monkeypatch.setattr(JointTuning, "run", watched)
    monkeypatch.setattr(FineTuneSettings, "num_together", 4)
    return found


def by_cell(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(row["task_id"], row["method"], row["device"]): row for row in rows}


@pytest.mark.slow
def test_the_rows_are_those_of_units_on_their_own(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings = tiny_settings(
        domains=("signs",), num_tasks=6, finetune=FAST, dispatch=chunks_of(1000), devices=("jetson_nano",),
        methods=("none", "last_layer", "transductive", "tinytrain", "tiny_tl", "full_train"),
    )  # fmt: skip
    alone = by_cell(rows_of(run(settings, tmp_path, run_id="alone").folder))
    sizes = request.getfixturevalue("sizes")
    together = by_cell(rows_of(run(settings, tmp_path, run_id="together").folder))
    assert sizes and set(sizes) <= {2, 4}, "six tasks, four at a time"
    assert together.keys() == alone.keys()
    for cell, row in together.items():
        wanted = alone[cell]
        differing = {name for name in row if row[name] != wanted[name]}
        assert differing <= {"host_ms", "accuracy_after", "loss_first", "loss_last", "run_id"}
        assert row["accuracy_after"] == pytest.approx(wanted["accuracy_after"], abs=0.12)  # one image of nine
        assert (row["loss_last"] or 0) == pytest.approx(wanted["loss_last"] or 0, rel=1e-2)


class FailsOnTask(EpisodeObjective):
    """Cannot load one task's images."""

    def states(self, task: TargetTask, *, cut: int, iteration: int) -> list[LayerState]:
        if task.task_id.endswith("/1"):
            raise ValueError("this task cannot be tuned")
        return super().states(task, cut=cut, iteration=iteration)


class FailsOnOne(LastLayerLike):
    def objective(self) -> Objective:
        return FailsOnTask()


def test_the_failure_of_one_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    add_method(monkeypatch, FailsOnOne("fails_on_one"))
    settings = tiny_settings(
        domains=("signs",), num_tasks=4, methods=("last_layer", "fails_on_one"), finetune=FAST,
        dispatch=chunks_of(1000),
    )  # fmt: skip
    rows = rows_of(run(settings, tmp_path).folder)
    failed = {
        (row["task_id"].rpartition("/")[2], row["method"], row["status"]) for row in rows if row["status"] != "ok"
    }
    assert failed == {("1", "fails_on_one", "error")}
    assert sizes == [4, 4], "the second ended in the failure; then its tasks ran one by one"


def test_what_does_not_fit_together_is_tuned_alone_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    def too_much(self: JointTuning) -> None:
        raise torch.OutOfMemoryError("no room for four tasks")

    monkeypatch.setattr(JointTuning, "run", too_much)
    settings = tiny_settings(domains=("signs",), num_tasks=4, methods=("last_layer",), finetune=FAST)
    folder = run(settings, tmp_path).folder
    assert {row["status"] for row in rows_of(folder)} == {"ok"}
    said = [entry for line in (folder / "log.jsonl").read_text().splitlines() if (entry := json.loads(line)).get("why")]
    assert [entry["event"] for entry in said] == ["tuned_alone"]
    assert "tasks of last_layer: OutOfMemoryError: no room for four tasks" in said[0]["why"]


def test_a_task_that_is_tried_again_is_alone(tmp_path: Path, sizes: list[int]) -> None:
    plan = plan_run(tiny_settings(domains=("signs",), methods=("last_layer",), finetune=FAST))
    network, stored = worker.network_of(plan.setup, plan.weights), {0: StoredTask(), 1: StoredTask()}
    found = []
    for attempt in (1, 2):
        chunk = Chunk(domain="signs", ranges=((0, 2),), cells=plan.grid.cells, attempt=attempt)
        found.append([tick.place for tick in worker._computed(network, plan.setup, chunk, stored)])
    assert found == [[0], [0, 1]] and sizes == [2]


def test_only_a_gpu_makes_steps_together() -> None:
    assert FineTuneSettings(mode="fast", tasks_together=5).num_together == 1
    assert FineTuneSettings(mode="fast", tasks_together=5, device="cuda").num_together == 5


def test_how_many_is_no_part_of_what_a_run_is() -> None:
    settings = [tiny_settings(finetune=FineTuneSettings(mode="fast", tasks_together=n)) for n in (1, 8)]
    assert plan_run(settings[0]).identity == plan_run(settings[1]).identity
    with pytest.raises(ConfigError, match=r"finetune\.tasks_together: found 0; allowed: 1 or more"):
        FineTuneSettings(tasks_together=0)
