"""Rows with every column a planner judges by, and how its documents are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import Row, grid_rows

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode

MakeRun = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
PHASES = {"load_ms": 100.0, "selection_ms": 900.0, "training_ms": 4000.0, "swap_ms": 0.0, "latency_ms": 5000.0}


def document(capsys: Capture, *words: str, code: ExitCode = ExitCode.DONE) -> Any:
    """The one JSON document a command prints on stdout."""
    assert main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def rows_with_ram(**changes: Any) -> list[Row]:
    """The grid, with RAM, flash and the ends of the peak filled in as a simulation does."""
    rows = grid_rows(**changes)
    for row in rows:
        if row["method"] == "raw_pixels":
            continue
        peak, ram = row["peak_bytes"], 320 * 1024 if row["device"] == "stm32f746" else 512 * 2**20
        low, high = peak * 9 // 10, peak * 11 // 10
        row |= {"peak_low_bytes": low, "peak_high_bytes": high, "ram_margin_bytes": ram - peak,
                "flash_bytes": 600_000, "flash_margin_bytes": 400_000, "selection_ms": 0.1 * row["latency_ms"],
                "fits": "yes" if high <= ram else "no" if low > ram else "uncertain"}  # fmt: skip
    return rows
