"""Calls the doctor once per case read from stdin, all in one fresh process, and prints what each said as JSON.

A process of its own: whoever imports Ray first decides its authentication for the whole process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time

from tinytrain_dist.cli import main
from tinytrain_dist.execution.head_inquiry import ask_head
from tinytrain_dist.foundation.errors import ClusterError

START_LIMIT_S = 60


def wait_for(address: str, token: str) -> None:
    """Return once the head has a node and a dashboard."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        with contextlib.suppress(ClusterError):
            found = ask_head(address, token=token)
            if found.cpus >= 1 and found.dashboard:
                return
        time.sleep(0.2)
    raise SystemExit(f"{address}: did not start")


def call(address: str, root: str, variables: dict[str, str]) -> dict[str, object]:
    """Return exit code, lines by subject and everything printed."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    os.environ.update(variables, HOME=root)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(["doctor", "--json", "--root", root, "--address", address])
    lines = {line["subject"]: line for line in json.loads(out.getvalue())["checks"]}
    return {"code": code, "lines": lines, "text": out.getvalue()}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    for head in {case["address"] for case in asked["cases"]}:
        wait_for(head, asked["token"])
    json.dump([call(case["address"], asked["root"], case["variables"]) for case in asked["cases"]], sys.stdout)
