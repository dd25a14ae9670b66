"""On a Ray cluster of two nodes: tasks that misbehave, workers that freeze, nodes that come and go."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faulty
import pyarrow.parquet as pq
import pytest
import tiny_simulation
from faulty import Misbehaves, chunk_with
from processes import busy_workers, kill
from tiny_simulation import add_method, chunks_of, rows_of, run, tiny_settings

from tinytrain_dist.adaptation.settings import FineTuneSettings
from tinytrain_dist.execution.executor import Outcome
from tinytrain_dist.execution.needs import WorkerNeeds
from tinytrain_dist.execution.ray_session import node_resources
from tinytrain_dist.execution.settings import ExecutorSettings, cluster, open_executor
from tinytrain_dist.foundation.errors import ClusterError, ExitCode
from tinytrain_dist.simulation.engine import SimulationResult
from tinytrain_dist.simulation.schema import HOST_COLUMNS, KEY_COLUMNS
from tinytrain_dist.simulation.settings import DispatchSettings, SimulationSettings
from tinytrain_dist.simulation.unit import MachineError

pytestmark = pytest.mark.slow
TWO, FOUR = ExecutorSettings(num_workers=2), ExecutorSettings(num_workers=4)
HANGS, DIES, RAISES, HOARDS = 3, 11, 19, 27
WORKER_BYTES = 1_500_000_000
WAIT_S = 120.0


class Nodes:
    """A head of two CPUs, and a second node, which says it has a GPU, that can be added and killed."""

    def __init__(self, ray_cluster: Any) -> None:
        self.cluster, self.node = ray_cluster, None

    def add(self) -> None:
        """Add the second node, where it is not there."""
        if self.node is not None:
            return
        self.node = self.cluster.add_node(
            num_cpus=2, num_gpus=1, resources={"second": 2}, object_store_memory=100_000_000
        )

    def raylet(self) -> int:
        """Process id of the second node's raylet."""
        assert self.node is not None
        return int(self.node.all_processes["raylet"][0].process.pid)

    def remove(self) -> None:
        """Kill the node with all its processes."""
        if self.node is not None:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # only what the connection below would set itself
    os.environ.setdefault("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 200_000_000}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        with cluster(ExecutorSettings(address=found.address)):
            import ray

            for module in (faulty, tiny_simulation):  # the folders of the tests are not on the workers' path
                ray.cloudpickle.register_pickle_by_value(module)
            yield Nodes(found)
    finally:
        found.shutdown()  # with the second node


def use(monkeypatch: pytest.MonkeyPatch, method: Misbehaves) -> None:
    """Make the method known here and in every worker."""
    add_method(monkeypatch, method)
    monkeypatch.setattr("tinytrain_dist.simulation.computing.run_chunk", chunk_with(method))


def misbehaving(**changes: Any) -> SimulationSettings:
    return tiny_settings(domains=("signs",), methods=(faulty.NAME,), devices=("stm32f746",), **changes)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {WAIT_S:.0f} s for {what}")


class Disturber(threading.Thread):
    """Does something to a run beside it; an error of its own fails the test."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work, self._error = work, None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.join(WAIT_S)
        if self._error is not None:
            raise self._error


def assert_same(result: SimulationResult, wanted: SimulationResult) -> None:
    """Nothing lost, nothing twice, nothing else."""
    assert (result.exit_code, result.result_hash) == (ExitCode.DONE, wanted.result_hash)
    keys = pq.read_table(result.folder / "results", columns=list(KEY_COLUMNS)).to_pylist()
    assert len(keys) == len({tuple(key.values()) for key in keys}) == wanted.rows


def plain(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return rows by task, without what the computing machine decides."""
    return {row["task_index"]: {k: v for k, v in row.items() if k not in HOST_COLUMNS} for row in rows}


def test_each_kind_of_bad_task_is_one_row_and_its_neighbours_are_as_ever(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hangs, one kills its worker each time, one raises, one takes too much memory; 36 behave."""
    use(monkeypatch, Misbehaves({}))
    wanted = plain(rows_of(run(misbehaving(num_tasks=40), tmp_path / "clean").folder))
    conduct = {HANGS: faulty.hang, DIES: faulty.die, RAISES: faulty.refuse, HOARDS: faulty.hoard}
    use(monkeypatch, Misbehaves(conduct))
    settings = misbehaving(num_tasks=40, dispatch=DispatchSettings(deadline_s=8.0, max_attempts=3))
    executor = ExecutorSettings(num_workers=2, needs=WorkerNeeds(memory_bytes=WORKER_BYTES))
    result = run(settings, tmp_path / "bad", executor=executor)
    assert (result.exit_code, result.failed, result.rows) == (ExitCode.PARTIAL, 4, 40)
    rows = {row["task_index"]: row for row in rows_of(result.folder)}
    assert (rows[HANGS]["status"], rows[RAISES]["status"]) == ("timeout", "error")
    assert "deadline of 8 s; its worker was ended" in rows[HANGS]["message"]
    assert rows[RAISES]["message"] == "RuntimeError: no luck"
    assert rows[DIES]["status"] == "crashed" and "the worker or its node died" in rows[DIES]["message"]
    assert rows[DIES]["attempt"] >= 3  # alone three times, and before that in company
    assert rows[HOARDS]["status"] == "error"
    assert "executor.memory_bytes allows 1,500,000,000" in rows[HOARDS]["message"]
    bad = {row["task_index"] for row in pq.read_table(result.folder / "failures.parquet").to_pylist()}
    assert bad == set(conduct)
    neighbours = {index: row for index, row in plain(list(rows.values())).items() if index not in conduct}
    assert neighbours == {index: row for index, row in wanted.items() if index not in conduct}


def test_memory_taken_in_native_code_ends_the_worker_and_nothing_else(nodes: Nodes) -> None:
    executor = ExecutorSettings(num_workers=2, needs=WorkerNeeds(memory_bytes=1_000_000_000))
    with open_executor(executor) as workers:
        greedy, modest = workers.submit(faulty.hoard_and_hang), workers.submit(faulty.nothing)
        found: dict[int, Outcome] = {}
        while len(found) < 2 and (outcome := workers.next_outcome(timeout_s=WAIT_S)) is not None:
            found[outcome.ticket] = outcome
    assert found[modest].value == 0
    failure = found[greedy].failure
    assert failure is not None and failure.kind == "crashed"


def test_a_frozen_worker_is_doubled_and_one_of_both_attempts_counts(nodes: Nodes, tmp_path: Path) -> None:
    settings = tiny_settings(dispatch=chunks_of(0.001))
    wanted = run(settings, tmp_path / "clean")

    def freeze() -> None:
        frozen = wait_for(lambda: busy_workers(os.getpid()), "a busy worker")[0]
        kill(frozen, signal.SIGSTOP)
        status = tmp_path / "runs" / "mine" / "status.json"
        try:
            wait_for(lambda: status.exists() and json.loads(status.read_text())["retried"], "a second attempt")
        finally:
            kill(frozen, signal.SIGCONT)

    with Disturber(freeze):
        result = run(settings, tmp_path / "runs", run_id="mine", executor=TWO)
    assert_same(result, wanted)


def test_four_workers_on_two_nodes_give_the_serial_result(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add()
    settings = tiny_settings(dispatch=chunks_of(0.001))
    assert_same(run(settings, tmp_path / "four", executor=FOUR), run(settings, tmp_path / "clean"))


def test_a_node_killed_with_chunks_in_flight_changes_nothing(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes.add()
    settings = misbehaving(num_tasks=24, dispatch=chunks_of(0.2))
    use(monkeypatch, Misbehaves({}))
    wanted = run(settings, tmp_path / "clean")
    use(monkeypatch, Misbehaves({}, seconds=0.3))
    raylet = nodes.raylet()

    def remove() -> None:
        wait_for(lambda: busy_workers(raylet), "a busy worker on the second node")
        nodes.remove()

    with Disturber(remove):
        result = run(settings, tmp_path / "runs", executor=FOUR)
    assert_same(result, wanted)
    assert max(row["attempt"] for row in rows_of(result.folder)) > 1
    assert " tasks lost (attempt 1): its machine failed" in caplog.text, "no task is blamed for it"


def test_a_cluster_too_small_says_within_seconds_what_is_needed_and_what_there_is(nodes: Nodes, tmp_path: Path) -> None:
    nodes.remove()
    wait_for(lambda: len(node_resources()) == 1, "the head to see that it is alone")
    needs = WorkerNeeds(num_cpus=3, resources=(("second", 1.0),))
    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"CPU: needed 3, available 2; second: needed 1, available 0") as caught:
        run(tiny_settings(), tmp_path, executor=ExecutorSettings(needs=needs, patience_s=1.0))
    assert time.monotonic() - started < 15
    assert caught.value.exit_code == ExitCode.NO_CLUSTER


def test_a_cluster_without_a_gpu_says_so(nodes: Nodes, tmp_path: Path) -> None:
    nodes.remove()
    wait_for(lambda: len(node_resources()) == 1, "the head to see that it is alone")
    settings = tiny_settings(finetune=FineTuneSettings(mode="fast", device="cuda"))
    with pytest.raises(ClusterError, match=r"GPU: needed 1, available 0"):
        run(settings, tmp_path, executor=ExecutorSettings(patience_s=1.0))


def test_the_only_node_that_is_large_enough_dies_and_comes_back(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.add()
    settings = misbehaving(num_tasks=10, dispatch=chunks_of(0.2))
    use(monkeypatch, Misbehaves({}))
    wanted = run(settings, tmp_path / "clean")
    use(monkeypatch, Misbehaves({}, seconds=0.3))
    needs = WorkerNeeds(resources=(("second", 1.0),))
    executor = ExecutorSettings(needs=needs, patience_s=1.0)

    def remove() -> None:
        wait_for(lambda: list((tmp_path / "runs").glob("mine/shards/*.parquet")), "a first shard")
        nodes.remove()

    with pytest.raises(ClusterError, match=r"second: needed 1, available 0"), Disturber(remove):
        run(settings, tmp_path / "runs", run_id="mine", executor=executor)
    assert json.loads((tmp_path / "runs" / "mine" / "run.json").read_text())["exit_code"] == ExitCode.NO_CLUSTER
    nodes.add()
    again = run(settings, tmp_path / "runs", run_id="mine", executor=executor)
    assert again.reused > 0
    assert_same(again, wanted)


def test_two_workers_share_a_gpu_and_stay_from_call_to_call(nodes: Nodes) -> None:
    """Ray itself would end a worker with a GPU after every call: each would load PyTorch and start the GPU anew."""
    nodes.add()
    wait_for(lambda: len(node_resources()) == 2, "the second node")
    with open_executor(ExecutorSettings(needs=WorkerNeeds(num_cpus=0.5, num_gpus=0.5))) as workers:
        assert workers.num_workers == 2
        tickets = [workers.submit(faulty.where) for _ in range(12)]
        found = [workers.next_outcome(timeout_s=WAIT_S) for _ in tickets]
    places = [outcome.value for outcome in found if outcome is not None]
    assert {gpu for _, gpu in places} == {"0"} and len(places) == 12
    assert len({process for process, _ in places}) <= 4, places


def test_a_gpu_that_torch_does_not_see_ends_the_run_and_nothing_is_computed_elsewhere(
    nodes: Nodes, tmp_path: Path
) -> None:
    nodes.add()
    settings = tiny_settings(finetune=FineTuneSettings(mode="fast", device="cuda"))
    with pytest.raises(MachineError, match=r"finetune\.device: found cuda, but torch .* sees no GPU"):
        run(settings, tmp_path / "runs", run_id="mine", executor=ExecutorSettings(needs=WorkerNeeds(num_gpus=0.5)))
    assert not list((tmp_path / "runs").glob("mine/shards/*"))
