"""Kills real runs just before a file gets its name, resumes them, and prints what each left as JSON lines.

``python kill_points.py FOLDER NAME ...``: each run dies before the first file whose path below the run has NAME in
it gets there: its bytes are on the disk under a temporary name, everything before it is there, nothing after.
One process imports everything; each run is a child of it, so that a death costs no start-up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "simulation")]

from tiny_simulation import chunks_of, run, tiny_settings  # noqa: E402

from tinytrain_dist.foundation.storage import open_storage  # noqa: E402
from tinytrain_dist.simulation import computing  # noqa: E402
from tinytrain_dist.simulation.engine import SimulationResult  # noqa: E402
from tinytrain_dist.simulation.manifest import Manifest  # noqa: E402

computing.COMMIT_S = 0.0  # every shard a commit of its own, however fast the machine is
STEPS = ("replace", "link")  # of the module os: a file is there under its name from then on
NUM_TASKS = 3
SETTINGS = tiny_settings(
    domains=("signs",), num_tasks=NUM_TASKS, methods=("raw_pixels",), devices=("stm32f746",), dispatch=chunks_of(0.001)
)


def in_child(work: Callable[[], Any], told: Path) -> int:
    """Run ``work`` in a child, which leaves what it returns in the file ``told``; returns the child's end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            told.write_text(json.dumps(work()))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_before(name: str) -> None:
    """Let this process die of SIGKILL before a file with ``name`` in its path gets there."""

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **options: Any) -> Any:
            if name in str(target).rpartition("/mine/")[2]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(source, target, **options)

        return call

    for step in STEPS:
        setattr(os, step, deadly(getattr(os, step)))


def simulated(root: Path, *, dies_before: str = "") -> dict[str, Any]:
    """Run to the end, or to the death; every shard is a commit of its own, however fast this machine is."""
    computing.COMMIT_SHARDS = 1
    if dies_before:
        die_before(dies_before)
    result: SimulationResult = run(SETTINGS, root, run_id="mine")
    return {"computed": result.computed, "hash": result.result_hash, "rows": result.rows}


def left_behind(folder: Path) -> dict[str, int]:
    """Return how many shards lie there, and how many of them the manifest names."""
    named = [record.rows_file for _, record in Manifest(open_storage(folder)).open().records()]
    lying = [path for path in (folder / "shards").glob("*.parquet") if not path.name.startswith(".")]
    return {"lying": len(lying), "named": len(named)}


def damage_one_orphan(folder: Path) -> None:
    """Flip a byte of a shard that no manifest names."""
    named = {record.rows_file for _, record in Manifest(open_storage(folder)).open().records()}
    path = next(path for path in (folder / "shards").glob("*.parquet") if f"shards/{path.name}" not in named)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def points(folder: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the undisturbed run, then what became of each that died; where a shard had no manifest yet, twice."""
    told = folder / "told.json"
    assert in_child(lambda: simulated(folder / "clean"), told) == 0
    yield {"name": "", **json.loads(told.read_text())}
    for number, name in enumerate(names):
        for damaged in (False, True):
            root = folder / f"{number}{'-damaged' * damaged}"
            end = in_child(lambda root=root, name=name: simulated(root, dies_before=name), told)  # type: ignore[misc]
            found = {"name": name, "end": end, **left_behind(root / "mine"), "damaged": damaged}
            if damaged:
                damage_one_orphan(root / "mine")
            assert in_child(lambda root=root: simulated(root), told) == 0  # type: ignore[misc]
            yield found | json.loads(told.read_text())
            if found["lying"] == found["named"]:
                break


if __name__ == "__main__":
    for point in points(Path(sys.argv[1]), sys.argv[2:]):
        print(json.dumps(point), flush=True)
