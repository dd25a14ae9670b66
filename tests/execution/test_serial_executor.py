"""The serial executor and worker group: semantics that the Ray ones share."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import calls
import numpy as np
import pytest

from tinytrain_dist.execution.executor import Failure
from tinytrain_dist.execution.memory_watch import resident_bytes
from tinytrain_dist.execution.needs import WorkerNeeds
from tinytrain_dist.execution.settings import ExecutorSettings, open_executor, open_worker_group
from tinytrain_dist.foundation.errors import ConfigError

SERIAL = ExecutorSettings(kind="serial")


def test_values_come_in_order_and_then_none() -> None:
    with open_executor(SERIAL) as executor:
        tickets = [executor.submit(calls.double, value) for value in range(3)]
        assert executor.num_in_flight == 3
        outcomes = [executor.next_outcome() for _ in tickets]
        assert [(o.ticket, o.value) for o in outcomes if o] == [(t, 2 * t) for t in tickets]
        assert executor.next_outcome(timeout_s=100) is None


def test_a_cancelled_call_is_not_run() -> None:
    with open_executor(SERIAL) as executor:
        first, second = (executor.submit(calls.double, value) for value in (1, 2))
        executor.cancel(first)
        outcome = executor.next_outcome()
        assert outcome is not None and (outcome.ticket, outcome.value) == (second, 4)
        assert executor.next_outcome() is None


def test_an_exception_is_a_failure_and_the_executor_goes_on() -> None:
    with open_executor(SERIAL) as executor:
        executor.submit(calls.raise_value_error, "no")
        executor.submit(calls.double, 4)
        first, second = executor.next_outcome(), executor.next_outcome()
    assert first is not None and first.failure == Failure("error", "ValueError: no")
    assert second is not None and second.value == 8


def test_shared_arrays_are_read_only_and_the_original_is_not() -> None:
    array = np.arange(5.0)
    with open_executor(SERIAL) as executor:
        executor.submit(calls.add_up, executor.share(array), 2.0)
        outcome = executor.next_outcome()
    assert outcome is not None and outcome.value == (20.0, False, "float64")
    assert array.flags.writeable


def test_group_gives_results_in_slot_order_and_raises_what_the_worker_raised() -> None:
    with open_worker_group(SERIAL, calls.Adder, 10) as group:
        assert group.run_round("add", [np.ones(2)], [3, 1]) == [(3, 15.0), (1, 13.0)]
        with pytest.raises(KeyError):
            group.run_round("refuse", [], [1])


@pytest.mark.parametrize(("field", "value"), [("kind", "rey"), ("num_workers", 0)])
def test_settings_name_the_key(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"executor.{field}"):
        ExecutorSettings(**{field: value})  # type: ignore[arg-type]


def test_the_value_of_a_generator_is_what_it_returns() -> None:
    with open_executor(SERIAL) as executor:
        executor.submit(calls.ticking, 3, 0.0)
        outcome = executor.next_outcome()
    assert outcome is not None and outcome.value == 3


@pytest.mark.slow
def test_a_call_that_takes_too_much_memory_is_an_error_and_the_next_one_runs() -> None:
    limit = resident_bytes() + 200_000_000
    with open_executor(ExecutorSettings(kind="serial", needs=WorkerNeeds(memory_bytes=limit))) as executor:
        executor.submit(calls.take, 400_000_000, 120.0)
        executor.submit(calls.take, 1_000_000, 0.3)
        start = time.monotonic()
        first, second = executor.next_outcome(), executor.next_outcome()
    assert first is not None and first.failure is not None and first.failure.kind == "error"
    assert first.failure.message.startswith("MemoryLimitError: ") and "executor.memory_bytes" in first.failure.message
    assert second is not None and second.value == 1
    assert time.monotonic() - start < 60


NODES = [{"CPU": 4.0, "GPU": 1.0, "memory": 8e9}, {"CPU": 2.0, "memory": 3e9, "fast_disk": 1.0}, {"memory": 9e9}]


@pytest.mark.parametrize(
    ("needs", "workers"),
    [
        ({}, 6),
        ({"num_cpus": 0.1}, 60),
        ({"num_cpus": 3}, 1),
        ({"num_gpus": 0.25}, 4),
        ({"memory_bytes": 3_000_000_000}, 3),
        ({"resources": (("fast_disk", 0.5),)}, 2),
        ({"num_cpus": 8}, 0),
    ],
)
def test_workers_are_counted_node_by_node(needs: dict[str, Any], workers: int) -> None:
    assert WorkerNeeds(**needs).fitting(NODES) == workers


def test_what_is_lacking_is_said_with_numbers() -> None:
    assert WorkerNeeds(num_cpus=8, num_gpus=2).lacking(NODES) == (
        "CPU: needed 8, available 4; GPU: needed 2, available 1 on the best of 3 nodes"
    )


@pytest.mark.parametrize(
    ("key", "value"), [("num_cpus", 0), ("num_gpus", -1), ("memory_bytes", 0), ("resources", (("CPU", 1.0),))]
)
def test_needs_name_the_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"executor.{key}"):
        WorkerNeeds(**{key: value})


def test_a_cluster_when_needed_is_not_started_for_nothing() -> None:
    program = (
        "import sys\n"
        "from tinytrain_dist.execution.settings import ExecutorSettings, cluster\n"
        "with cluster(ExecutorSettings(address='127.0.0.1:1'), when_needed=True): pass\n"
        "print('ray' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
