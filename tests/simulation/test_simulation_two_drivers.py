"""A driver that stood still between asking for its lock and writing, while another took the run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from store_machine import compute, machine_setup, missing, open_store
from tiny_simulation import run, tiny_settings

from tinytrain_dist.foundation.errors import RunLockedError
from tinytrain_dist.foundation.storage import Storage, open_storage
from tinytrain_dist.simulation import lock
from tinytrain_dist.simulation.finished import write_tables
from tinytrain_dist.simulation.lock import run_lock
from tinytrain_dist.simulation.log_file import LOG
from tinytrain_dist.simulation.manifest_snapshot import SNAPSHOT
from tinytrain_dist.simulation.run_document import DOCUMENT
from tinytrain_dist.simulation.status import STATUS


@dataclass
class Freezing:
    """A storage whose process stands still just before it calls ``method``: meanwhile something happens once."""

    inner: Storage
    method: str
    meanwhile: Callable[[], None] | None

    def __getattr__(self, name: str) -> Any:
        if name == self.method and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return getattr(self.inner, name)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('s3_bucket')}/run"


@pytest.mark.parametrize("method", ["replace_if", "create", "names", "remove"])
@pytest.mark.slow
def test_who_lost_the_run_while_standing_still_changes_nothing(place: str, method: str) -> None:
    setup, storage = machine_setup(place), open_storage(place)

    def another() -> None:
        second = open_store(storage, setup)
        for chunk in missing(second):
            assert second.add(compute(storage, setup, chunk))
        write_tables(second)

    def files() -> dict[str, bytes]:
        return {name: storage.read(name) for name in storage.names()}

    left = {}

    def meanwhile() -> None:
        another()
        left.update(files())

    first = open_store(Freezing(storage, "", None), setup)
    chunks = list(missing(first))
    assert first.add(compute(storage, setup, chunks[0].cut(1)[0]))
    if method != "create":
        first.commit()
    first.storage.method, first.storage.meanwhile = method, meanwhile  # type: ignore[attr-defined]
    with pytest.raises(RunLockedError, match="another driver writes to this run"):
        first.commit()
        if method == "names":
            first.remove_strays()
        first.fold()
        first.remove_strays()
    now = files()
    assert {name: now.get(name) for name in left} == left
    assert all(name.startswith("journal/") for name in now.keys() - left.keys())
    assert not list(missing(open_store(storage, setup))) and SNAPSHOT in now


def test_who_lost_the_run_says_nothing_in_the_others_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock file is replaced while the first shards come in, as if another driver had started."""
    from tinytrain_dist.simulation.computing import Computation

    folder, original = tmp_path / "mine", Computation.enter
    left: dict[str, bytes] = {}

    def losing(self: Computation, finished: Any) -> None:
        original(self, finished)
        (folder / lock.LOCK_NAME).unlink(missing_ok=True)
        for name in (DOCUMENT, STATUS, LOG):
            (folder / name).write_text("the other driver's")
            left[name] = (folder / name).read_bytes()

    monkeypatch.setattr(Computation, "enter", losing)
    with pytest.raises(RunLockedError, match="was removed while this process held it"):
        run(tiny_settings(num_tasks=1, methods=("raw_pixels",)), tmp_path, run_id="mine")
    assert {name: (folder / name).read_bytes() for name in left} == left


def test_every_change_asks_for_the_lock(tmp_path: Path) -> None:
    """With the lock gone neither journal, snapshot, tables nor strays are touched."""
    setup, storage = machine_setup(str(tmp_path)), open_storage(tmp_path)
    with run_lock(tmp_path) as held:
        store = open_store(storage, setup, guard=held.check)
        for chunk in missing(store):
            assert store.add(compute(storage, setup, chunk))
        (tmp_path / lock.LOCK_NAME).unlink()
        before = sorted(storage.names())
        for change in (store.commit, store.fold, store.remove_strays):
            store._manifest.pending = store._manifest.pending if change == store.commit else []
            (tmp_path / "shards" / "stray.parquet").write_bytes(b"")
            with pytest.raises(RunLockedError, match="was removed while"):
                change()
            (tmp_path / "shards" / "stray.parquet").unlink()
        assert sorted(storage.names()) == before
