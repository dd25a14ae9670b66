"""The store as a state machine: drivers and workers die between any two steps; no row is lost, none is there twice."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_machine import (
    DEVICES,
    DyingStorage,
    Killed,
    complete,
    compute,
    machine_setup,
    missing,
    open_store,
    repriced,
)

from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.simulation import manifest
from tinytrain_dist.simulation.finished import write_tables
from tinytrain_dist.simulation.request import ShardRecord
from tinytrain_dist.simulation.store import RunStore

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the same file system calls, without waiting for a disk

STATUS = st.sampled_from(["crashed", "ok"])


class StoreMachine(RuleBasedStateMachine):
    """Rules are what drivers, workers and disks do; ``teardown`` resumes once more and looks at every row."""

    expected = ""

    @initialize()
    def start(self) -> None:
        self.place = tempfile.mkdtemp(dir=MEMORY)
        self.setup_ = machine_setup(self.place)
        self.storage = DyingStorage(open_storage(self.place))
        self.store: RunStore | None = None
        self.written: list[ShardRecord] = []

    @contextlib.contextmanager
    def dying(self) -> Iterator[None]:
        """End the driver where its storage says so."""
        try:
            yield
        except Killed:
            self.store, self.storage.left = None, None

    @rule(left=st.integers(1, 12), after=st.booleans())
    def die_soon(self, left: int, after: bool) -> None:
        self.storage.left, self.storage.after = left, after

    @rule()
    def open(self) -> None:
        with self.dying():
            self.store = None
            self.store = open_store(self.storage, self.setup_)

    @precondition(lambda self: self.store is not None)
    @rule(number=st.integers(0, 20), count=st.integers(1, 4), enters=st.booleans(), status=STATUS)
    def compute(self, number: int, count: int, enters: bool, status: str) -> None:
        """A worker writes a shard of missing work; its driver enters it, or never hears of it."""
        assert self.store is not None
        chunks = list(missing(self.store))
        if chunks:
            with self.dying():
                chunk = chunks[number % len(chunks)].cut(count)[0]
                self.written.append(compute(self.storage, self.setup_, chunk, status=status))
                if enters:
                    assert self.store.add(self.written[-1])

    @precondition(lambda self: self.store is not None and self.written)
    @rule(number=st.integers(0, 20))
    def hear_again(self, number: int) -> None:
        """A second copy of a shard arrives: it counts only if nothing of it was done."""
        assert self.store is not None
        record = self.written[number % len(self.written)]
        same_price = all(self.setup_.profile(d).hash == digest for d, digest in record.profiles.items())
        before = self.store.coverage.count()
        if same_price and all((Path(self.place) / path).exists() for path in record.files):
            was_done = self.store.coverage.touches(record.domain, record.ranges, record.cells)
            assert self.store.add(record) is not was_done
            assert self.store.coverage.count() == before + (0 if was_done else record.rows)

    @precondition(lambda self: self.store is not None)
    @rule(how=st.sampled_from(["commit", "fold", "write_tables", "void_failed"]))
    def write(self, how: str) -> None:
        assert self.store is not None
        with self.dying():
            write_tables(self.store) if how == "write_tables" else getattr(self.store, how)()

    @precondition(lambda self: self.store is not None)
    @rule()
    def retry(self) -> None:
        """What failed is computed again and succeeds; then there is nothing to try again."""
        assert self.store is not None
        with self.dying():
            self.store.void_failed()
            for chunk in missing(self.store):
                self.written.append(compute(self.storage, self.setup_, chunk, status="ok"))
                assert self.store.add(self.written[-1])
            self.store.commit()
            assert self.store.void_failed() == 0

    @rule(device=st.sampled_from(DEVICES))
    def change_profile(self, device: str) -> None:
        """The next driver is given another content of a profile."""
        self.store, self.setup_ = None, repriced(self.setup_, device)

    @rule(number=st.integers(0, 50), place=st.integers(0, 10_000))
    def damage(self, number: int, place: int) -> None:
        """A byte flips anywhere."""
        self.store = None
        files = sorted(p for p in Path(self.place).rglob("*") if p.is_file())
        if files:
            data = bytearray((path := files[number % len(files)]).read_bytes())
            data[place % len(data)] ^= 1
            path.write_bytes(bytes(data))

    def teardown(self) -> None:
        if hasattr(self, "place"):
            finished = complete(self.place, self.setup_)
            assert finished[1] == self.expected
            assert complete(self.place, self.setup_) == finished, "a finished run stays as it is"
            shutil.rmtree(self.place)


@pytest.mark.slow
def test_no_crash_loses_or_doubles_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FOLD_SEGMENTS", 3)
    StoreMachine.expected = complete(str(tmp_path), machine_setup(str(tmp_path)))[1]
    options = settings(
        max_examples=25, stateful_step_count=25, deadline=None, print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    run_state_machine_as_test(StoreMachine, settings=options)


def retried(place: str) -> RunStore:
    """A run whose failed tasks were voided and computed again."""
    setup, storage = machine_setup(place), open_storage(place)
    store = open_store(storage, setup)
    for status in ("crashed", "ok"):
        store.void_failed()
        for chunk in missing(store):
            assert store.add(compute(storage, setup, chunk, status=status))
        store.commit()
    return store


def test_what_succeeded_is_not_tried_again(tmp_path: Path) -> None:
    store = open_store(open_storage(tmp_path), machine_setup(str(retried(str(tmp_path)).storage.location)))
    assert store.void_failed() == 0 and not list(missing(store))


def test_rows_whose_void_was_lost_are_replaced_and_not_doubled(tmp_path: Path) -> None:
    place, setup = str(tmp_path), machine_setup(str(tmp_path))
    retried(place)
    (segment,) = [path for path in (tmp_path / "journal").iterdir() if b'"void"' in path.read_bytes()]
    segment.write_bytes(segment.read_bytes()[:-9])
    finished = complete(place, setup)
    assert complete(place, setup) == finished
    statuses = pq.read_table(tmp_path / "results", columns=["status"])["status"].to_pylist()
    assert set(statuses) == {"ok"}, "the later rows count"


def test_dropping_a_damaged_shard_leaves_its_successor(tmp_path: Path) -> None:
    """Drops name files: a chunk computed again has the name of the one that was damaged."""
    place, setup, storage = str(tmp_path), machine_setup(str(tmp_path)), open_storage(tmp_path)
    store = retried(place)
    first = [record for _, record in store.records() if record.failed_tasks]
    for record in first:
        storage.write(record.rows_file, b"damaged")
    assert {record.name for record in first} == {r.name for _, r in store.records() if not r.failed_tasks}
    assert not list(missing(open_store(storage, setup)))
