"""A whole simulation in a bucket: equal to the local one, resumable after its driver or the service is gone."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time

import pyarrow.dataset as ds
import pytest
from s3_server import REFUSED, proxy_to, set_account
from tiny_job import SERIAL, TINY, document, environment

from tinytrain_dist.cli import main
from tinytrain_dist.foundation.errors import ExitCode
from tinytrain_dist.foundation.storage import Storage, open_storage
from tinytrain_dist.simulation import lock
from tinytrain_dist.simulation.lease import LeaseTimes, lease
from tinytrain_dist.simulation.manifest import Manifest, read_json
from tinytrain_dist.simulation.schema import KEY_COLUMNS

SMALL_CHUNKS = "dispatch.chunk_seconds=0.001"
LEASE_S = 5.0  # how long a dead driver's lease is waited for: 30 s outside the tests
SHORT_LEASE = (
    "import functools, sys\nfrom tinytrain_dist.simulation import lock\n"
    "from tinytrain_dist.simulation.lease import LeaseTimes, lease\n"
    f"lock.lease = functools.partial(lease, times=LeaseTimes(lease_s={LEASE_S}, beat_s=0.5, look_s=0.2))\n"
    "from tinytrain_dist.cli import main\nsys.exit(main(sys.argv[1:]))\n"
)


@pytest.fixture(scope="module")
def local_hash(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The result of the same simulation on a local disk."""
    root = tmp_path_factory.mktemp("local")
    assert main(["simulate", *TINY, SERIAL, f"run.root={root}", "run.id=mine"]) == ExitCode.DONE
    return str(document(root / "mine")["result_hash"])


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    times = LeaseTimes(lease_s=LEASE_S, beat_s=0.5, look_s=0.2)
    monkeypatch.setattr(lock, "lease", functools.partial(lease, times=times))


def words(bucket: str, *more: str) -> list[str]:
    return ["simulate", *TINY, SERIAL, SMALL_CHUNKS, f"run.root={bucket}/runs", "run.id=mine", *more]


def assert_finished(storage: Storage, wanted: str) -> None:
    """The run is complete, has the local run's hash, and no key twice."""
    found = read_json(storage.read("run.json"), where=storage.location)
    assert (found["status"], found["exit_code"], found["result_hash"]) == ("finished", 0, wanted)
    assert storage.size("_SUCCESS") and storage.size("report.html")
    filesystem, root = storage.dataset_filesystem()
    keys = ds.dataset(f"{root}/results", filesystem=filesystem).to_table(columns=list(KEY_COLUMNS)).to_pylist()
    assert len(keys) == len({tuple(key.values()) for key in keys}) == 6 * 3 * 3


def num_shards(storage: Storage) -> int:
    return sum(1 for _ in Manifest(storage).open().records())


@pytest.mark.slow
def test_the_job_in_a_bucket_equals_the_local_one(
    s3_bucket: str, local_hash: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(s3_bucket)) == ExitCode.DONE
    out, _ = capsys.readouterr()
    assert f"page: {s3_bucket}/runs/mine/report.html" in out
    assert_finished(open_storage(f"{s3_bucket}/runs/mine"), local_hash)
    assert main(words(s3_bucket)) == ExitCode.DONE
    again, err = capsys.readouterr()
    assert again == out and "all 6 tasks were there already" in err


@pytest.mark.slow
def test_a_killed_driver_is_resumed_by_the_same_command(
    s3_bucket: str, local_hash: str, short_lease: None, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = open_storage(f"{s3_bucket}/runs/mine")
    driver = subprocess.Popen(
        [sys.executable, "-c", SHORT_LEASE, *words(s3_bucket, "finetune.iterations=2", "executor.kind=ray",
         "executor.num_workers=1")],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while num_shards(storage) < 1 and driver.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert driver.poll() is None, driver.communicate()
        driver.kill()
        driver.wait()
    finally:
        os.killpg(driver.pid, signal.SIGKILL)  # and the Ray it leaves behind
        driver.communicate()
    before = num_shards(storage)
    assert before >= 1 and storage.size("_SUCCESS") is None
    assert main(words(s3_bucket)) == ExitCode.DONE
    err = capsys.readouterr().err
    assert " 0 failed" in err and "6 tasks computed" not in err
    assert_finished(storage, local_hash)


@pytest.mark.slow
@pytest.mark.parametrize(("puts", "slow_s", "said"), [(6, None, "cannot be"), (9, 5.0, "does not answer in time")])
def test_a_service_that_goes_away_during_the_run_ends_it_resumably(
    puts: int, slow_s: float | None, said: str, s3_bucket: str, local_hash: str, short_lease: None,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    service = os.environ["AWS_ENDPOINT_URL"]
    with proxy_to(service) as proxy:
        proxy.puts_left, proxy.then_slow_s = puts, slow_s
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("TINYTRAIN_STORAGE_TIMEOUT_S", "2")
        assert main(words(s3_bucket)) == ExitCode.STORAGE
        err = capsys.readouterr().err
        assert "Traceback" not in err and said in err and s3_bucket in err
        assert err.splitlines()[-1] == "exit code 8: storage error"
    monkeypatch.setenv("AWS_ENDPOINT_URL", service)
    monkeypatch.delenv("TINYTRAIN_STORAGE_TIMEOUT_S")
    storage = open_storage(f"{s3_bucket}/runs/mine")
    assert storage.size("_SUCCESS") is None
    assert main(words(s3_bucket)) == ExitCode.DONE
    assert_finished(storage, local_hash)


@pytest.mark.parametrize("which", ["refused", "slow", "wrong bucket"])
def test_a_service_nobody_can_write_to_is_said_before_anything_starts(
    which: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinytrain_dist.verbs.simulate.cluster", None)  # would raise
    with proxy_to(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        proxy.delay_s = 3.0
        set_account(monkeypatch, {"refused": REFUSED, "slow": proxy.url}.get(which, os.environ["AWS_ENDPOINT_URL"]))
        monkeypatch.setenv("TINYTRAIN_STORAGE_TIMEOUT_S", "0.5" if which == "slow" else "20")
        bucket = f"{s3_bucket}-wrong" if which == "wrong bucket" else s3_bucket
        assert main(words(bucket)) == ExitCode.STORAGE
    err = capsys.readouterr().err
    said = {"refused": "cannot be reached", "slow": "does not answer in time"}.get(which, "no such bucket")
    assert said in err and bucket in err and "Traceback" not in err
    assert err.splitlines()[-1] == "exit code 8: storage error"


@pytest.mark.parametrize(
    ("word", "key"), [("backbone.weights=meta_train", "backbone.weights"), ("finetune.learning_rate=auto", "finetune")]
)
def test_stages_that_need_a_local_folder_say_so(
    word: str, key: str, s3_bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(s3_bucket, word, "methods=[tinytrain]")) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert key in err and "local run.root" in err and s3_bucket in err
    assert list(open_storage(s3_bucket).names()) == []
