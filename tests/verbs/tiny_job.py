"""The words of a job of a second, and how its process is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from processes import as_in_a_terminal

from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.simulation.manifest import Manifest
from tinytrain_dist.simulation.schema import KEY_COLUMNS

REPOSITORY = Path(__file__).parents[2]
TINY = (
    "backbone.name=mobilenet_v2_w0.1",
    "backbone.resolution=32",
    "data.domains=[signs,flags]",
    "episodes.num_tasks=3",
    "episodes.way=3",
    "episodes.shot=2",
    "episodes.query=3",
    "finetune.iterations=2",
    "methods=[none,last_layer,tinytrain]",
    "devices.names=[stm32f746,raspberry_pi_4b,jetson_nano]",
    "wandb.mode=disabled",
)
SERIAL = "executor.kind=serial"


def command(*words: str) -> list[str]:
    """Return the command line of ``jobs/simulate.py`` with the tiny settings, then ``words``."""
    return [sys.executable, str(REPOSITORY / "jobs" / "simulate.py"), *TINY, *words]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a fresh user: nothing about Ray is set."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return plain | {"PYTHONUNBUFFERED": "1"} | changes


def start(*words: str, **changes: str) -> subprocess.Popen[str]:
    """Start the job in a process group of its own."""
    return subprocess.Popen(
        command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**changes),
        start_new_session=True,
        preexec_fn=as_in_a_terminal,
    )


def finish(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the job to its end."""
    return subprocess.run(
        command(*words), capture_output=True, text=True, env=environment(**changes), timeout=300, check=False
    )


def document(folder: Path) -> dict[str, Any]:
    """Return a run's ``run.json``."""
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def num_shards(folder: Path) -> int:
    """Return how many shards the run's manifest names."""
    return sum(1 for _ in Manifest(open_storage(folder)).open().records())


def assert_no_double_keys(folder: Path) -> None:
    """Fail where two result rows have one key."""
    rows = pq.read_table(folder / "results", columns=list(KEY_COLUMNS)).to_pylist()
    assert len(rows) == len({tuple(row.values()) for row in rows}) > 0
