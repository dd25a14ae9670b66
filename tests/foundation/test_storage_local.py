"""A local folder survives crashes at any step, full disks and races of processes: whole or nothing, one winner."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.storage import Storage, open_storage

CRASHED = 99
STEPS = ("open", "fsync", "replace", "link", "unlink")  # of the module os: every step that changes the disk's state


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child, which ends without any clean-up; returns its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crash_at(countdown: int, *, after: bool) -> None:
    """Let this process die at its ``countdown``-th step, before or after that step takes effect."""
    left = [countdown]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not after:
                os._exit(CRASHED)
            result = real(*arguments, **options)
            if left[0] == 0:
                os._exit(CRASHED)
            return result

        return step

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.none() | st.binary(max_size=9),
    data=st.binary(min_size=10, max_size=40),
    how=st.sampled_from(["write", "create", "replace_if"]),
    countdown=st.integers(1, 12),
    after=st.booleans(),
)
def test_a_crash_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, before: bytes | None, data: bytes, how: str, countdown: int, after: bool
) -> None:
    storage = open_storage(tempfile.mkdtemp(dir=tmp_path))
    if before is not None:
        storage.write("shards/a", before)

    def work() -> None:
        crash_at(countdown, after=after)
        change(storage, how, data)

    code = in_child(work)
    assert code in (0, CRASHED)
    found = storage.read_if_there("shards/a")
    new = before if how == "create" and before is not None else data
    assert found in ((new,) if code == 0 else (before, new))
    assert list(storage.names()) == ([] if found is None else ["shards/a"])
    change(storage, how, data)  # the same step again: nothing the crash left is in its way
    assert storage.read("shards/a") == new


def change(storage: Storage, how: str, data: bytes) -> None:
    if how == "write":
        storage.write("shards/a", data)
    elif how == "create":
        storage.create("shards/a", data)
    else:
        found = storage.read_version("shards/a")
        storage.replace_if("shards/a", data, version=None if found is None else found[1])


def test_crashes_are_injected_at_every_kind_of_step(tmp_path: Path) -> None:
    codes = []
    for countdown in range(1, 12):

        def work(countdown: int = countdown) -> None:
            crash_at(countdown, after=False)
            open_storage(tmp_path / f"run{countdown}").write("a/b", b"data")

        codes.append(in_child(work))
    steps = codes.index(0)
    assert steps >= 6  # opened and synced: two new folders; temporary file synced and renamed; folder synced
    assert codes == [CRASHED] * steps + [0] * (11 - steps)


def test_a_full_disk_is_named_and_leaves_the_old(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.write("a", b"old")

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for attempt in (storage.write, storage.create):
            with pytest.raises(StorageError, match=r"/(a|b): cannot be written: File too large"):
                attempt("a" if attempt == storage.write else "b", b"x" * 5000)

    assert in_child(work) == 0
    assert storage.read("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = open_storage(tmp_path / "file" / "run")
    with pytest.raises(StorageError, match=r"file/run/a: cannot be written: "):
        storage.write("a", b"1")
    assert storage.read_if_there("a") is None and list(storage.names()) == []


def test_unreadable_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for ask in (open_storage(tmp_path).read_if_there, open_storage(tmp_path).remove):
        with pytest.raises(StorageError, match=r"/a: cannot be (read|removed): Is a directory"):
            ask("a")


def _create_all(location: str, number: int, gate: Barrier, won: Any) -> None:
    storage = open_storage(location)
    gate.wait()
    for name in range(20):
        if storage.create(f"n{name}", str(number).encode()):
            won.put((name, number))


def test_of_eight_processes_that_create_at_once_one_wins(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    gate, won = fork.Barrier(8), fork.SimpleQueue()
    workers = [fork.Process(target=_create_all, args=(str(tmp_path), number, gate, won)) for number in range(8)]
    for worker in workers:
        worker.start()
    winners = sorted(won.get() for _ in range(20))
    for worker in workers:
        worker.join()
    assert won.empty()
    assert [name for name, _ in winners] == list(range(20))
    assert all((tmp_path / f"n{name}").read_text() == str(number) for name, number in winners)
