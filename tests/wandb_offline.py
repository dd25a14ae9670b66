"""Reads what the W&B client wrote offline, with the client's own command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def inspect(folder: Path, *options: str) -> str:
    """What the client's own reader says about an offline run."""
    (log,) = folder.glob("run-*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", *options, "--json", str(log)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Records of one kind of an offline run."""
    found = [json.loads(line) for line in inspect(folder).splitlines()]
    return [record[kind] for record in found if record["type"] == kind]


def steps(folder: Path) -> dict[int, dict[str, Any]]:
    """The history of an offline run by step, in the order it was written."""
    found: dict[int, dict[str, Any]] = {}
    for record in records(folder, "history"):
        row = record["item"]
        assert row["_step"] > max(found, default=-1), "steps go forward"
        found[row["_step"]] = row
    return found
