"""Two rounds of the soak: the whole of it is one command, ``python -m tests.soak --rounds 50 --seed 0``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SEED = 11  # its first two rounds: two workers killed, then the raylet of the second node


@pytest.mark.slow
def test_two_rounds_of_real_kills_leave_the_serial_result() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--rounds", "2", "--seed", str(SEED)],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    *rounds, summary, failed = done.stdout.splitlines()
    assert [line.startswith(f"round {number} (seed {SEED})") for number, line in enumerate(rounds)] == [True, True]
    assert summary.startswith("2 rounds") and "every result equals the serial one" in summary
    assert json.loads(failed) == {"seed": SEED, "failed": []}
