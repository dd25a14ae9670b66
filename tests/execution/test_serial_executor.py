"""The serial executor and worker group: semantics that the Ray ones share."""

from __future__ import annotations

import calls
import numpy as np
import pytest

from tinytrain_dist.execution.executor import Failure
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
