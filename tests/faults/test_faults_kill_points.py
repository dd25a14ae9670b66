"""A driver killed by SIGKILL between any two writes: the run resumes, and nothing that was whole is computed again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
NUM_TASKS = 3
WRITES = [
    "run.json",
    "shards/",
    "journal/0000000001.json",
    "journal/0000000002.json",
    "journal/part-",
    "manifest.json",
    "results/",
    "_SUCCESS",
]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What ``kill_points.py`` saw: the undisturbed run first."""
    program = str(Path(__file__).with_name("kill_points.py"))
    done = subprocess.run(
        [sys.executable, program, str(tmp_path_factory.mktemp("kill")), *WRITES],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_write_is_survived(points: list[dict[str, Any]]) -> None:
    """Before, between and after the manifest's own files: the old one or the new one counts, never half of one."""
    clean, *killed = points
    assert (clean["computed"], clean["rows"]) == (NUM_TASKS, NUM_TASKS)
    assert [point["name"] for point in killed if not point["damaged"]] == WRITES
    for point in killed:
        assert point["end"] == -signal.SIGKILL, point
        assert (point["hash"], point["rows"]) == (clean["hash"], clean["rows"]), point
        assert point["named"] <= point["lying"] <= NUM_TASKS, point


def test_a_shard_whose_driver_died_before_the_manifest_is_adopted_if_it_is_whole(points: list[dict[str, Any]]) -> None:
    orphaned = [point for point in points[1:] if point["lying"] > point["named"]]
    assert {point["damaged"] for point in orphaned} == {False, True}
    for point in points[1:]:
        whole = point["lying"] - (1 if point["damaged"] else 0)
        assert point["computed"] == NUM_TASKS - whole, point
