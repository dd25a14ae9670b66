"""One contract, held by every storage: the same tests over a local folder and over S3's protocol."""

from __future__ import annotations

import os
import pickle
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinytrain_dist.foundation.errors import ConfigError, ExitCode, StorageError
from tinytrain_dist.foundation.storage import Storage, open_storage

ODD_NAMES = ["a b", "ü", "a%20b", "q?x", "a+b", "a#b", "~t", "deep/er/still/x.parquet", ".hidden", "x.tmp", "_SUCCESS"]
ESCAPES = ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a/.", "a\\b", "a\0b", ".x.tmp"]


SERVICE = "TINYTRAIN_TEST_STORAGE"  # a folder such as gs://bucket/tests: the same tests against a real service
KINDS = ["local", "s3", *(["service"] if SERVICE in os.environ else [])]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Give an empty storage of each kind."""
    if request.param == "local":
        return open_storage(tmp_path / "run")
    if request.param == "service":
        return open_storage(os.environ[SERVICE]).below(f"{uuid.uuid4().hex}/run")
    return open_storage(f"{request.getfixturevalue('s3_bucket')}/some/run")


def test_what_is_written_is_read_and_replaced(storage: Storage) -> None:
    storage.write("shards/a.parquet", b"one")
    assert storage.read("shards/a.parquet") == b"one"
    assert storage.size("shards/a.parquet") == 3
    storage.write("shards/a.parquet", b"")
    assert storage.read("shards/a.parquet") == b""
    assert storage.size("shards/a.parquet") == 0


def test_what_is_not_there_is_said_so(storage: Storage) -> None:
    assert list(storage.names()) == list(storage.names("shards")) == []
    assert storage.read_if_there("a") is storage.read_version("a") is storage.size("a") is None
    storage.remove("a")
    with pytest.raises(StorageError, match=r"run/a: no such (file|object)") as caught:
        storage.read("a")
    assert caught.value.exit_code == ExitCode.STORAGE


def test_a_folder_is_no_file(storage: Storage) -> None:
    storage.write("shards/a", b"1")
    assert storage.size("shards") is None
    assert storage.read_if_there("shards/a/b") is None
    storage.remove("shards/a/b")
    assert list(storage.names()) == ["shards/a"]


def test_create_takes_only_what_is_free(storage: Storage) -> None:
    assert storage.create("a", b"first")
    assert not storage.create("a", b"second")
    assert storage.read("a") == b"first"
    storage.remove("a")
    assert storage.create("a", b"third")


def test_a_conditional_replacement_needs_the_version_that_is_there(storage: Storage) -> None:
    first = storage.replace_if("m", b"1", version=None)
    assert first is not None
    assert storage.replace_if("m", b"x", version=None) is None
    second = storage.replace_if("m", b"2", version=first)
    assert second is not None and second != first
    assert storage.replace_if("m", b"x", version=first) is None
    assert storage.read_version("m") == (b"2", second)
    storage.remove("m")
    assert storage.replace_if("m", b"x", version=second) is None
    assert storage.read_if_there("m") is None


def test_names_are_sorted_by_whole_path_at_any_depth(storage: Storage) -> None:
    names = ["a.b", "a/b", "a/b.c", "a/c/d", "a-b", "ab", "z"]
    for name in names:
        storage.write(name, b"1")
    assert list(storage.names()) == sorted(names)
    assert list(storage.names("a")) == ["a/b", "a/b.c", "a/c/d"]
    assert list(storage.below("a").names()) == ["b", "b.c", "c/d"]
    assert list(storage.below("a").names("c")) == ["c/d"]


def test_more_names_than_one_answer_of_a_listing_holds(s3_bucket: str) -> None:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    names = [f"shards/{number:05d}" for number in range(1005)]
    for name in names:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(s3_bucket.removeprefix("s3://"), f"run/{name}", b"1")
    assert list(open_storage(f"{s3_bucket}/run").names("shards")) == names


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_come_back_as_they_were(storage: Storage, name: str) -> None:
    storage.write(name, name.encode())
    assert storage.read(name) == name.encode()
    assert list(storage.names()) == [name]


@pytest.mark.parametrize("name", ESCAPES)
def test_paths_that_lead_out_are_refused(storage: Storage, name: str) -> None:
    asked: list[Callable[[], object]] = [
        lambda: storage.write(name, b""),
        lambda: storage.create(name, b""),
        lambda: storage.read_if_there(name),
        lambda: storage.remove(name),
        lambda: storage.below(name),
        lambda: storage.replace_if(name, b"", version=None),
    ]
    for ask in asked:
        with pytest.raises(StorageError, match=r"inside a storage|temporary files"):
            ask()


def test_only_the_location_travels(storage: Storage) -> None:
    storage.write("a", b"1")
    packed = pickle.dumps(storage)
    assert b"secret-of-the-test" not in packed and b"AKIATESTKEY" not in packed
    arrived: Storage = pickle.loads(packed)
    assert arrived.location == storage.location
    assert arrived.read("a") == b"1"
    assert open_storage(storage.location).read("a") == b"1"


def test_parquet_datasets_lie_in_the_same_folder(storage: Storage) -> None:
    table = pa.table({"x": [1, 2, 3]})
    filesystem, root = storage.dataset_filesystem()
    filesystem.create_dir(f"{root}/results")
    filesystem.create_dir(f"{root}/empty")
    pq.write_table(table, f"{root}/results/part-0.parquet", filesystem=filesystem)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.write("results/part-1.parquet", sink.getvalue().to_pybytes())
    assert list(storage.names()) == ["results/part-0.parquet", "results/part-1.parquet"]
    assert ds.dataset(f"{root}/results", filesystem=filesystem).to_table()["x"].to_pylist() == [1, 2, 3] * 2


def in_threads(work: Callable[[int], None], *, count: int = 8) -> None:
    gate = threading.Barrier(count)

    def start(number: int) -> None:
        gate.wait()
        work(number)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_eight_that_create_at_once_one_wins(storage: Storage) -> None:
    won: list[tuple[str, int]] = []
    names = [f"n{number}" for number in range(10)]

    def create_all(number: int) -> None:
        won.extend((name, number) for name in names if storage.create(name, str(number).encode()))

    in_threads(create_all)
    assert sorted(name for name, _ in won) == names
    assert all(storage.read(name) == str(number).encode() for name, number in won)


def test_no_conditional_replacement_is_lost_among_eight(storage: Storage) -> None:
    assert storage.create("count", b"0")

    def add_three(_: int) -> None:
        for _ in range(3):
            while True:
                found = storage.read_version("count")
                assert found is not None
                if storage.replace_if("count", str(int(found[0]) + 1).encode(), version=found[1]) is not None:
                    break

    in_threads(add_three)
    assert storage.read("count") == b"24"


NAMES = st.sampled_from(["a", "b/c", "b/d", "b.e"])
STEPS = st.tuples(st.sampled_from(["write", "create", "remove", "replace", "stale"]), NAMES, st.binary(max_size=8))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=15))
def test_any_history_leaves_what_a_dictionary_would_hold(storage: Storage, steps: list[tuple[str, str, bytes]]) -> None:
    place, model = storage.below(uuid.uuid4().hex), dict[str, bytes]()
    for step, name, data in steps:
        if step == "write":
            place.write(name, data)
            model[name] = data
        elif step == "create":
            assert place.create(name, data) == (name not in model)
            model.setdefault(name, data)
        elif step == "remove":
            place.remove(name)
            model.pop(name, None)
        elif step == "replace":
            found = place.read_version(name)
            assert place.replace_if(name, data, version=None if found is None else found[1]) is not None
            model[name] = data
        else:
            there = place.read_version(name)
            if there is not None and there[0] != data:
                place.write(name, data)
                model[name] = data
                assert place.replace_if(name, b"late", version=there[1]) is None
    assert {name: place.read(name) for name in place.names()} == model
    assert {name: place.size(name) for name in model} == {name: len(data) for name, data in model.items()}


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("s3n://bucket/run", r"this scheme is unknown; allowed: a local path, file://, s3://, gs://"),
        ("az://key:secret@bucket", r"^storage location az://\.\.\.: this scheme"),
        ("s3://", r"expected s3://bucket/folder"),
        ("s3:///run", r"expected s3://bucket/folder"),
        ("gs://bucket/run?x=1", r"expected gs://bucket/folder"),
        ("s3://bucket/../run", r"no path inside a storage"),
        ("s3://AKIA:hush@bucket/run", r"^storage location s3://\*\*\*: credentials go into the environment"),
    ],
)
def test_locations_nobody_can_open_are_refused_at_once(location: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_storage(location)
    assert "hush" not in str(caught.value) and "secret" not in str(caught.value)


def test_locations_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("run").location == str(tmp_path / "run")
    assert open_storage(f"file://{tmp_path}/run").location == str(tmp_path / "run")
    assert open_storage("s3://bucket/runs/").location == "s3://bucket/runs"
    assert open_storage("s3://bucket").below("run").location == "s3://bucket/run"
    assert open_storage("gs://bucket/runs").below("a/b").location == "gs://bucket/runs/a/b"
