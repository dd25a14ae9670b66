"""The hash in a profile changes with everything the fit reads, and with nothing else."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from calibration_rows import INFERENCE, TRAINING

from tinytrain_dist.costs.measurements import OPERATION_COLUMNS, read_measurements, rows_hash
from tinytrain_dist.costs.training_runs import TrainingRun, read_training_runs, runs_hash

ROW = read_measurements(INFERENCE)[0]
RUN = read_training_runs(TRAINING)[0]


@pytest.mark.parametrize("column", OPERATION_COLUMNS)
def test_operation_totals_are_hashed(column: str) -> None:
    more = replace(ROW.operations, **{column: getattr(ROW.operations, column) + 1})
    assert rows_hash([replace(ROW, operations=more)]) != rows_hash([ROW])


@pytest.mark.parametrize(
    "change", [{"family": "other"}, {"phase": "fisher"}, {"status": "rejected"}, {"energy_mj": 1.0},
               {"further": (("passes", 1.0),)}],
)  # fmt: skip
def test_what_groups_and_splits_rows_is_hashed(change: dict[str, object]) -> None:
    assert rows_hash([replace(ROW, **change)]) != rows_hash([ROW])  # type: ignore[arg-type]


def test_where_a_row_stands_is_not_hashed() -> None:
    assert rows_hash([replace(ROW, line=99, source="elsewhere")]) == rows_hash([ROW])


@pytest.mark.parametrize("name", [f.name for f in fields(TrainingRun) if f.type == "float"])
def test_every_number_of_a_run_is_hashed(name: str) -> None:
    assert runs_hash([replace(RUN, **{name: getattr(RUN, name) + 1})]) != runs_hash([RUN])
