"""``python -m tests.soak --rounds 50 --seed 0``: kills something real in every round; the result must not change.

A round is one tiny simulation, driven by the job as a user starts it, on a Ray cluster of two nodes. At a moment
drawn from the seed a worker, the second node's raylet, the driver, or the whole cluster below an embedded driver is
ended by SIGKILL; the same command is given again until it is done. The result must hash to that of an undisturbed
serial run, with no key twice and none missing. Prints every seed; ``--only ROUND`` does one round again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "verbs")]

import pyarrow.parquet as pq  # noqa: E402
from processes import below, busy_workers, kill  # noqa: E402
from tiny_job import SERIAL, command, document, environment  # noqa: E402

from tinytrain_dist.simulation.schema import KEY_COLUMNS  # noqa: E402

WORDS = ("episodes.num_tasks=6", "finetune.iterations=8", "dispatch.chunk_seconds=0.2", "run.id=mine")
ROWS = 2 * 6 * 3 * 3
VICTIMS = {"worker": 3, "node": 3, "driver": 3, "embedded": 1}  # how often, relative to each other
SPAN_S = 6.0  # about how long a run takes from taking its lock: kills fall anywhere in it
LIMIT_S, MOST_RERUNS = 300.0, 5


@dataclass
class Round:
    """What is done in one round, all of it drawn from the seeds, and what came of it."""

    seed: int
    number: int
    victim: str = field(init=False)
    moments: list[float] = field(init=False)
    hits: int = 0
    codes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""

    def __post_init__(self) -> None:
        draw = random.Random(f"{self.seed}/{self.number}")
        self.victim = draw.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        self.moments = sorted(
            draw.uniform(0, SPAN_S) for _ in range(1 if self.victim == "node" else draw.choice([1, 2]))
        )

    def words(self) -> str:
        """Say it in one line."""
        when = ", ".join(f"{moment:.2f} s" for moment in self.moments)
        state = f"FAILED: {self.error}" if self.error else "same result"
        return (
            f"round {self.number} (seed {self.seed}): {self.victim} at {when}: {self.hits} killed, "
            f"exit codes {self.codes}, {self.seconds:.1f} s, {state}"
        )


class Soak:
    """Rounds on one cluster, which lives as long as nobody kills its head."""

    def __init__(self, cluster: Any, root: Path, wanted: str) -> None:
        self.cluster, self.root, self.wanted = cluster, root, wanted
        self.node = self._new_node()

    def _new_node(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=100_000_000)

    def play(self, this: Round) -> Round:
        """Play one round to its end."""
        started, folder = time.monotonic(), self.root / f"round-{this.number}"
        try:
            self._until_done(this, folder)
            check(folder / "mine", self.wanted)
        except AssertionError as error:
            this.error = str(error)
        this.seconds = time.monotonic() - started
        if this.victim == "node":
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = self._new_node()
        shutil.rmtree(folder, ignore_errors=True)
        return this

    def _until_done(self, this: Round, folder: Path) -> None:
        """Start the same command until it has ended well; the kills that are left go to each start in turn."""
        left = list(this.moments)
        while not this.codes or this.codes[-1] != 0:
            assert len(this.codes) <= MOST_RERUNS, f"not done after {len(this.codes)} starts: {this.codes}"
            with self._driver(this, folder) as driver:
                left = self._disturb(this, driver, folder / "mine", left)
                code, said = ended(driver)
            this.codes.append(code)
            expected = {0, -signal.SIGKILL} if this.victim == "driver" else {0}
            assert this.victim == "embedded" or code in expected, f"exit code {code}: {said[-2000:]}"

    @contextmanager
    def _driver(self, this: Round, folder: Path) -> Iterator[subprocess.Popen[str]]:
        where = "executor.num_workers=2" if this.victim == "embedded" else f"executor.address={self.cluster.address}"
        own = {"RAY_ADDRESS": ""} if this.victim == "embedded" else client()
        process = subprocess.Popen(
            command(*WORDS, where, f"run.root={folder}"), env=environment(**own), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            kill_group(process.pid)

    def _disturb(self, this: Round, driver: subprocess.Popen[str], run: Path, left: list[float]) -> list[float]:
        """Kill at the first moments that are left, one of the driver's each start; returns the rest."""
        if not wait_until(lambda: (run / "lock.json").exists(), driver):
            return left
        locked = time.monotonic()
        now, rest = (left[:1], left[1:]) if this.victim in ("driver", "embedded") else (left, [])
        for moment in now:
            time.sleep(max(0.0, locked + moment - time.monotonic()))
            this.hits += self._kill(this.victim, driver)
        return rest

    def _kill(self, victim: str, driver: subprocess.Popen[str]) -> int:
        if driver.poll() is not None:
            return 0
        if victim == "driver":
            return int(kill(driver.pid))
        if victim == "node":
            return int(kill(self.node.all_processes["raylet"][0].process.pid))
        if victim == "embedded":
            raylets = [p.pid for p in below(driver.pid) if "/raylet/raylet " in p.command]
            return int(any(kill(pid) for pid in raylets))
        wait_until(lambda: busy_workers(os.getpid()), driver)
        return int(any(kill(pid) for pid in busy_workers(os.getpid())[:1]))


def client() -> dict[str, str]:
    """Return what a driver needs to join the cluster."""
    return {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}


def wait_until(condition: Callable[[], Any], driver: subprocess.Popen[str]) -> bool:
    """Wait for a condition; false where the driver ends before."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        if driver.poll() is not None:
            return False
        assert time.monotonic() < end, "the driver neither works nor ends"
        time.sleep(0.01)
    return True


def ended(driver: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the driver's exit code and what it said; a hanging one is an error."""
    try:
        said, _ = driver.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the driver hangs, for more than {LIMIT_S:.0f} s") from None
    return driver.returncode, said


def kill_group(group: int) -> None:
    """End what a driver leaves behind: of a killed one that is its embedded Ray."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def check(run: Path, wanted: str) -> None:
    """Raise ``AssertionError`` unless the run is whole: same hash, no key twice, none missing."""
    found = document(run)
    assert (found["status"], found["exit_code"]) == ("finished", 0), found["status"]
    assert found["result_hash"] == wanted, "another result"
    assert (run / "_SUCCESS").exists(), "no _SUCCESS"
    keys = {tuple(row.values()) for row in pq.read_table(run / "results", columns=list(KEY_COLUMNS)).to_pylist()}
    rows = pq.read_table(run / "results").num_rows
    assert rows == len(keys) == ROWS, f"{rows} rows, {len(keys)} keys, {ROWS} wanted"


def undisturbed(root: Path) -> str:
    """Return the hash of a serial run that nobody disturbs."""
    done = subprocess.run(
        command(*WORDS, SERIAL, f"run.root={root}"), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(document(root / "mine")["result_hash"])


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Run a head of one CPU, with token authentication, below this process."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def summary(rounds: list[Round]) -> str:
    """Say in words how it went."""
    kinds = Counter(this.victim for this in rounds)
    hits, starts = sum(this.hits for this in rounds), sum(len(this.codes) for this in rounds)
    bad = [this.number for this in rounds if this.error]
    seconds = sum(this.seconds for this in rounds)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
    verdict = f"FAILED in rounds {bad}" if bad else "every result equals the serial one"
    return f"{len(rounds)} rounds ({counts}), {hits} kills, {starts} starts, {seconds:.0f} s: {verdict}"


def main() -> int:
    """Play the rounds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides victims and moments (default: %(default)s)")
    parser.add_argument("--only", type=int, metavar="ROUND", help="this round alone")
    options = parser.parse_args()
    numbers = range(options.rounds) if options.only is None else [options.only]
    rounds = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, two_nodes() as cluster:
        soak = Soak(cluster, Path(folder), undisturbed(Path(folder) / "clean"))
        for number in numbers:
            rounds.append(soak.play(Round(options.seed, number)))
            print(rounds[-1].words(), flush=True)
    print(summary(rounds), flush=True)
    print(json.dumps({"seed": options.seed, "failed": [this.number for this in rounds if this.error]}), flush=True)
    return 1 if any(this.error for this in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
