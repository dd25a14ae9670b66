"""The Ray executor and worker group over one embedded cluster: same outcomes as serial, and faults."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import calls
import numpy as np
import pytest

from tinytrain_dist.execution import ray_tasks
from tinytrain_dist.execution.executor import Executor, Outcome
from tinytrain_dist.execution.needs import WorkerNeeds
from tinytrain_dist.execution.settings import ExecutorSettings, cluster, open_executor, open_worker_group
from tinytrain_dist.foundation.errors import ClusterError, ConfigError, TooManyFailuresError

pytestmark = pytest.mark.slow
TWO = ExecutorSettings(kind="ray", num_workers=2)
SERIAL = ExecutorSettings(kind="serial")


@pytest.fixture(scope="module")
def connection() -> Iterator[None]:
    with cluster(TWO):
        import ray  # only now: Ray reads its environment when it is first imported

        ray.cloudpickle.register_pickle_by_value(calls)  # the folder of the tests is not on the workers' path
        yield


@pytest.fixture
def executor(connection: None) -> Iterator[Executor]:
    with open_executor(TWO) as executor:
        yield executor


def outcomes(executor: Executor) -> list[Outcome]:
    found = []
    while (outcome := executor.next_outcome(timeout_s=60)) is not None:
        found.append(outcome)
    return sorted(found, key=lambda outcome: outcome.ticket)


def mixed_calls(executor: Executor) -> list[Outcome]:
    array = executor.share(np.arange(1000, dtype=np.float32))
    for value in range(6):
        executor.submit(calls.double, value)
    executor.submit(calls.add_up, array, 0.5)
    executor.submit(calls.raise_value_error, "bad")
    return outcomes(executor)


def test_serial_and_ray_give_the_same_outcomes(executor: Executor) -> None:
    with open_executor(SERIAL) as serial:
        assert mixed_calls(executor) == mixed_calls(serial)
    assert executor.num_workers == 2 and executor.num_in_flight == 0


def test_a_killed_worker_is_a_crash_and_others_go_on(executor: Executor) -> None:
    executor.submit(calls.kill_self)
    for value in range(4):
        executor.submit(calls.double, value)
    first, *rest = outcomes(executor)
    assert first.failure is not None and first.failure.kind == "crashed"
    assert [outcome.value for outcome in rest] == [0, 2, 4, 6]


def test_deadline_counts_from_the_start_of_the_call(executor: Executor) -> None:
    for _ in range(4):  # two rounds on two CPUs: queueing must not count
        executor.submit(calls.sleep, 0.8, deadline_s=1.3)
    executor.submit(calls.sleep, 600.0, deadline_s=1.0)
    start = time.monotonic()
    *short, long = outcomes(executor)
    assert [outcome.value for outcome in short] == [0.8] * 4
    assert long.failure is not None and long.failure.kind == "timeout"
    assert time.monotonic() - start < 30


def test_a_sign_of_life_renews_the_deadline_and_the_last_one_is_kept(executor: Executor) -> None:
    executor.submit(calls.ticking, 6, 0.5, deadline_s=2.0)
    executor.submit(calls.ticking, 2, 0.1, 600.0, deadline_s=2.0)
    start = time.monotonic()
    alive, hanging = outcomes(executor)
    assert alive.value == 6
    assert hanging.failure is not None and hanging.failure.kind == "timeout" and hanging.progress == 1
    assert time.monotonic() - start < 30


def test_a_stopped_worker_is_killed_by_its_node_and_its_cpu_comes_back(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray_tasks, "REACT_S", 1.0)
    monkeypatch.setattr(ray, "cancel", lambda *args, **options: None)  # the message is lost
    executor.submit(calls.sleep, 0.1)
    executor.submit(calls.stop_self, str(tmp_path / "pid"), deadline_s=1.0)
    _, stopped = outcomes(executor)
    assert stopped.failure is not None and stopped.failure.kind == "timeout"
    assert "its worker was ended" in stopped.failure.message
    killed = Path("/proc", (tmp_path / "pid").read_text())
    until = time.monotonic() + 30
    while killed.exists() and time.monotonic() < until:  # its node reaps it, after the kill, in its own time
        time.sleep(0.05)
    assert not killed.exists()
    for _ in range(4):
        executor.submit(calls.sleep, 0.3)
    assert [outcome.value for outcome in outcomes(executor)] == [0.3] * 4 and executor.num_workers == 2


def test_a_stopped_worker_is_a_timeout(executor: Executor, tmp_path: Path) -> None:
    executor.submit(calls.stop_self, str(tmp_path / "pid"), deadline_s=1.0)
    start = time.monotonic()
    (stopped,) = outcomes(executor)
    assert stopped.failure is not None and stopped.failure.kind == "timeout"
    assert time.monotonic() - start < 1.0 + ray_tasks.GIVE_UP_S + 5.0


def test_a_worker_that_cannot_be_ended_is_given_up_and_counted_as_taken(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray_tasks, "GIVE_UP_S", 2.0)
    monkeypatch.setattr(ray, "cancel", lambda *args, **options: None)  # the message is lost
    executor.submit(calls.stop_self, str(tmp_path / "pid"), deadline_s=1.0)
    start = time.monotonic()
    (stopped,) = outcomes(executor)
    assert stopped.failure is not None and stopped.failure.kind == "timeout" and time.monotonic() - start < 30
    assert "its worker does not react" in stopped.failure.message
    assert executor.num_workers == 1
    executor.submit(calls.double, 4)
    assert outcomes(executor)[0].value == 8
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    end = time.monotonic() + 30
    while executor.num_workers < 2 and time.monotonic() < end:
        time.sleep(0.1)
    assert executor.num_workers == 2


def test_a_cancelled_call_ends_and_frees_its_worker(executor: Executor) -> None:
    long = [executor.submit(calls.sleep, 600.0) for _ in range(2)]
    assert executor.next_outcome(timeout_s=1.0) is None
    for ticket in long:
        executor.cancel(ticket)
    assert executor.num_in_flight == 0
    executor.submit(calls.double, 2)
    start = time.monotonic()
    assert outcomes(executor)[0].value == 4 and time.monotonic() - start < 20


def test_no_more_workers_are_used_than_allowed(connection: None) -> None:
    with open_executor(ExecutorSettings(kind="ray", num_workers=1)) as executor:
        assert executor.num_workers == 1
        for _ in range(4):
            executor.submit(calls.sleep, 0.4)
        start = time.monotonic()
        assert len(outcomes(executor)) == 4 and time.monotonic() - start >= 1.6


def test_a_cluster_without_room_says_what_is_needed_and_what_there_is(connection: None) -> None:
    settings = ExecutorSettings(kind="ray", needs=WorkerNeeds(num_cpus=64), patience_s=0.5)
    with open_executor(settings) as executor:
        assert executor.num_workers == 0
        executor.submit(calls.double, 1)
        with pytest.raises(ClusterError, match=r"CPU: needed 64, available 2 on the best of 1 nodes"):
            executor.next_outcome(timeout_s=30)


def test_workers_share_a_cpu(connection: None) -> None:
    with open_executor(ExecutorSettings(kind="ray", needs=WorkerNeeds(num_cpus=0.5))) as executor:
        assert executor.num_workers == 4
        executor.submit(calls.double, 4)
        assert outcomes(executor)[0].value == 8


def test_timeout_of_next_outcome_leaves_the_call_in_flight(executor: Executor) -> None:
    executor.submit(calls.sleep, 1.0)
    assert executor.next_outcome(timeout_s=0.05) is None
    assert executor.num_in_flight == 1
    assert outcomes(executor)[0].value == 1.0


def test_a_result_that_cannot_travel_is_an_error(executor: Executor) -> None:
    executor.submit(calls.unpicklable)
    failure = outcomes(executor)[0].failure
    assert failure is not None and failure.kind == "error" and "pickle" in failure.message


def test_workers_have_one_thread(executor: Executor) -> None:
    executor.submit(calls.threads)
    assert outcomes(executor)[0].value == ("1", 1)


def test_group_equals_serial_and_survives_a_killed_actor(connection: None, tmp_path: Path) -> None:
    with open_worker_group(TWO, calls.Adder, 5, slots_per_call=2) as group:
        with open_worker_group(SERIAL, calls.Adder, 5) as serial:
            shared, slots = [np.ones(7)], list(range(9))
            assert group.run_round("add", shared, slots) == serial.run_round("add", shared, slots)
        assert group.run_round("add_or_die_once", [str(tmp_path)], list(range(8))) == [5 + s for s in range(8)]
        assert (tmp_path / "died").exists()
        assert group.run_round("add", shared, [1]) == [(1, 13.0)]


@pytest.mark.parametrize("settings", [SERIAL, TWO], ids=["serial", "two actors"])
def test_the_next_round_is_prepared_before_it_begins(connection: None, settings: ExecutorSettings) -> None:
    now, later = [f"now {i}" for i in range(4)], [f"later {i}" for i in range(4)]
    with open_worker_group(settings, calls.Preparer, slots_per_call=1) as group:
        group.run_round("prepared_at", [], now)  # both actors answer from here on
        group.run_round("prepared_at", [], now, upcoming=later)
        time.sleep(0.5)
        begun = time.monotonic()
        early = [at < begun for at in group.run_round("prepared_at", [], later, upcoming=now)]
        assert early[:2] == [True, True]  # of two actors the first slot of each
        begun = time.monotonic()
        assert all(at > begun for at in group.run_round("prepared_at", [], ["something else"] * 2))


def test_a_group_takes_what_its_workers_need(connection: None) -> None:
    halves = ExecutorSettings(num_workers=3, needs=WorkerNeeds(num_cpus=0.5))
    with open_worker_group(halves, calls.Adder, 5) as group:
        assert group.num_workers == 3  # two whole CPUs hold them
    gpu = ExecutorSettings(needs=WorkerNeeds(num_gpus=1))
    with (
        pytest.raises(ClusterError, match=r"too small for one worker: .*GPU: needed 1, available 0"),
        open_worker_group(gpu, calls.Adder),
    ):
        pass


def test_a_slot_that_always_kills_is_named_and_not_endless(connection: None) -> None:
    with (
        open_worker_group(TWO, calls.Adder) as group,
        pytest.raises(TooManyFailuresError, match="slot 1: its worker died 3 times"),
    ):
        group.run_round("always_die", [], [0, 1, 2, 3])


def test_a_factory_that_dies_is_not_endless(connection: None) -> None:
    with (
        open_worker_group(ExecutorSettings(num_workers=1), calls.dying_factory) as group,
        pytest.raises(TooManyFailuresError, match="died while starting"),
    ):
        group.run_round("add", [], [1])


def test_the_exception_of_a_worker_arrives_as_it_was(connection: None) -> None:
    with open_worker_group(TWO, calls.Adder) as group, pytest.raises(KeyError):
        group.run_round("refuse", [], [1, 2])


def test_nested_cluster_joins_and_does_not_end_the_connection(connection: None, executor: Executor) -> None:
    with cluster(TWO):
        pass
    executor.submit(calls.double, 1)
    assert outcomes(executor)[0].value == 2


def _message(address: str, **more: str) -> tuple[str, float]:
    """Connect in a fresh process, since this one has a connection; returns (error text, seconds)."""
    program = (
        "import sys, time\n"
        "from tinytrain_dist.execution.ray_session import connect\n"
        "start = time.monotonic()\n"
        "try:\n"
        "    with connect(address=sys.argv[1]): pass\n"
        "except ValueError as error:\n"
        "    print(type(error).__name__, error, time.monotonic() - start, sep='|')\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | more
    done = subprocess.run(
        [sys.executable, "-c", program, address], capture_output=True, text=True, timeout=100, env=environment
    )
    kind, text, seconds = done.stdout.strip().split("|")
    return f"{kind}: {text}", float(seconds)


def test_an_address_where_nothing_answers_fails_within_15_s() -> None:
    text, seconds = _message("127.0.0.1:1")
    assert text.startswith(ClusterError.__name__) and "127.0.0.1:1" in text and seconds < 15


def test_auto_is_probed_too(tmp_path: Path) -> None:
    text, seconds = _message("auto", RAY_TMPDIR=str(tmp_path))
    assert text.startswith(ClusterError.__name__) and "part of no cluster" in text and seconds < 15
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1\n")
    for address, more in (("auto", {}), ("", {"RAY_ADDRESS": "auto"})):
        text, seconds = _message(address, RAY_TMPDIR=str(tmp_path), **more)
        assert text.startswith(ClusterError.__name__) and "127.0.0.1:1" in text and seconds < 15
    text, _ = _message("auto", RAY_TMPDIR=str(tmp_path), RAY_ADDRESS="127.0.0.1:2")
    assert "127.0.0.1:2" in text


def test_a_listener_that_is_no_ray_head_fails_within_15_s() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        text, seconds = _message(f"127.0.0.1:{server.getsockname()[1]}")
    assert text.startswith(ClusterError.__name__) and seconds < 15


def test_a_dashboard_address_is_refused_by_name() -> None:
    text, _ = _message("http://127.0.0.1:8265")
    assert text.startswith(ConfigError.__name__) and "ray job submit" in text
