"""The lease on a run in an object store: one holder, a dead one's is taken over, a lost one is noticed in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from s3_server import REFUSED, proxy_to

from tinytrain_dist.foundation.errors import ExitCode, RunLockedError, StorageError
from tinytrain_dist.foundation.storage import Storage, open_storage
from tinytrain_dist.foundation.storage.local import LocalStorage
from tinytrain_dist.simulation.lease import LOCK_NAME, Lease, LeaseTimes, lease, steady_clock
from tinytrain_dist.simulation.lock import run_lock

SHORT = LeaseTimes(lease_s=2.5, beat_s=0.3, look_s=0.05)
SILENT = LeaseTimes(lease_s=0.5, beat_s=0.2, look_s=0.02)
HOLD = (
    "import sys, time\nfrom tinytrain_dist.foundation.storage import open_storage\n"
    "from tinytrain_dist.simulation.lease import LeaseTimes, lease\n"
    "with lease(open_storage(sys.argv[1]), times=LeaseTimes(lease_s=2.5, beat_s=0.3, look_s=0.05)) as held:\n"
    "    print('held', flush=True)\n    sys.stdin.readline()\n    held.check()\n"
)


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Give an empty storage of each kind: a lease needs nothing but conditional writes."""
    if request.param == "local":
        return open_storage(tmp_path)
    return open_storage(f"{request.getfixturevalue('s3_bucket')}/run")


def document(storage: Storage) -> dict[str, object]:
    found: dict[str, object] = json.loads(storage.read(LOCK_NAME))
    return found


def silent_holder(storage: Storage, *, times: LeaseTimes = SILENT) -> Lease:
    """Take the lease and never renew it, as a holder that died (or whose machine stands still)."""
    held = Lease(storage, times=times, clock=steady_clock)
    held.acquire()
    return held


def test_a_second_driver_is_refused_at_the_first_sign_of_life(storage: Storage) -> None:
    with lease(storage, times=SHORT) as held:
        started = time.monotonic()
        with pytest.raises(RunLockedError, match=rf"held by process {os.getpid()} on ") as caught:
            lease(storage, times=SHORT).__enter__()
        assert time.monotonic() - started < SHORT.lease_s
        assert caught.value.exit_code == ExitCode.LOCKED
        held.check()
    assert document(storage)["released"] is True


def test_a_released_lease_is_free_at_once(storage: Storage) -> None:
    with pytest.raises(ZeroDivisionError), lease(storage, times=LeaseTimes()):
        _ = 1 / 0
    started = time.monotonic()
    with lease(storage, times=LeaseTimes()) as held:
        held.check()
    assert time.monotonic() - started < 5


def test_a_silent_holder_is_taken_over_and_must_stop(storage: Storage) -> None:
    silent = silent_holder(storage)
    started = time.monotonic()
    with lease(storage, times=SHORT) as held:
        assert time.monotonic() - started >= SILENT.lease_s
        with pytest.raises(RunLockedError, match=r"taken over by process \d+ on .*; this run stops") as caught:
            silent.check()
        assert caught.value.exit_code == ExitCode.LOCKED
        silent.stop()
        held.check()
        assert document(storage)["released"] is False  # who lost the lease gives nothing back


def test_a_holder_that_slept_without_being_missed_goes_on(storage: Storage) -> None:
    silent = silent_holder(storage)
    time.sleep(SILENT.lease_s * 1.2)
    silent.check()  # renewed under the old version: nobody can have held it in between
    assert document(storage)["beat"] == 3


def test_of_eight_that_wait_for_a_dead_holder_one_takes_over(storage: Storage) -> None:
    silent_holder(storage)
    held, refused, done = [], [], threading.Event()

    def wait_for_it() -> None:
        try:
            with lease(open_storage(storage.location), times=SHORT) as mine:
                held.append(mine)
                done.wait()
                mine.check()
        except RunLockedError:
            refused.append(1)

    threads = [threading.Thread(target=wait_for_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(refused) < 7 and len(held) < 2:
        time.sleep(0.02)
    done.set()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)


@pytest.mark.slow  # starts two processes and waits for their leases to end
def test_a_killed_process_is_replaced_and_a_frozen_one_stops(s3_bucket: str) -> None:
    storage = open_storage(f"{s3_bucket}/run")
    for ending in (signal.SIGKILL, signal.SIGSTOP):
        holder = start_holder(storage.location)
        with pytest.raises(RunLockedError, match=f"process {holder.pid} on "), lease(storage, times=SHORT):
            pass
        holder.send_signal(ending)
        with lease(storage, times=SHORT):
            assert document(storage)["pid"] == os.getpid()
            if ending == signal.SIGSTOP:
                holder.send_signal(signal.SIGCONT)
                _, errors = holder.communicate("go on\n", timeout=20)
                assert f"taken over by process {os.getpid()} on" in errors and "RunLockedError" in errors
        holder.kill()
        holder.communicate()


def start_holder(location: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, location],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("jump_s", [-86400.0, 86400.0])
def test_a_jump_of_the_wall_clock_changes_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    real = time.time
    with lease(storage, times=SHORT) as held:
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        time.sleep(SHORT.beat_s * 2)
        held.check()
        with pytest.raises(RunLockedError, match="held by"):
            lease(storage, times=SHORT).__enter__()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"holder": 1, "lease_s": "x"}', '{"lease_s": 1e99, "pid": 3}'])
@pytest.mark.slow
def test_a_damaged_lock_object_is_taken_over_after_a_whole_lease(tmp_path: Path, text: str) -> None:
    storage = open_storage(tmp_path)
    storage.write(LOCK_NAME, text.encode())
    times = LeaseTimes(lease_s=1.0, beat_s=0.2, look_s=0.02)
    started = time.monotonic()
    with lease(storage, times=times) as held:
        held.check()
    assert 1.0 <= time.monotonic() - started < 10


def test_a_removed_lock_object_is_a_lost_lease(storage: Storage) -> None:
    with lease(storage, times=SHORT) as held:
        storage.remove(LOCK_NAME)
        held.renew()
        with pytest.raises(RunLockedError, match="the object was removed"):
            held.check()


def test_a_service_that_is_gone_for_a_moment_costs_nothing(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy_to(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        storage = open_storage(f"{s3_bucket}/run")
        with lease(storage, times=SHORT) as held:
            proxy.lost_answers = 2
            while proxy.lost_answers:
                time.sleep(0.02)
            time.sleep(SHORT.beat_s * 3)
            held.check()
        assert document(storage)["released"] is True


def test_a_service_that_stays_away_ends_the_run_before_others_may_start(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = silent_holder(open_storage(f"{s3_bucket}/run"), times=LeaseTimes(lease_s=0.5, beat_s=0.1))
    monkeypatch.setenv("AWS_ENDPOINT_URL", REFUSED)
    monkeypatch.setenv("TINYTRAIN_STORAGE_RETRY_S", "0.01")
    silent._storage = open_storage(f"{s3_bucket}/run")
    time.sleep(0.45)
    with pytest.raises(StorageError, match=rf"could not be renewed for .*{REFUSED} cannot be reached"):
        silent.check()


class Careless(LocalStorage):
    """A store that takes conditional writes and ignores the condition, as some old S3 look-alikes do."""

    def replace_if(self, path: str, data: bytes, *, version: str | None) -> str | None:
        self.write(path, data)
        return "1"


def test_a_store_that_ignores_conditions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="ignores the conditions of writes"), lease(Careless(str(tmp_path))):
        pass


def test_check_asks_the_service_only_when_renewals_are_overdue(tmp_path: Path) -> None:
    steps = [0.0]
    held = Lease(open_storage(tmp_path), times=LeaseTimes(), clock=lambda: steps[0])
    held.acquire()
    before = document(open_storage(tmp_path))["beat"]
    for steps[0] in (1.0, 5.0, 9.9):
        held.check()
    assert document(open_storage(tmp_path))["beat"] == before
    steps[0] = 10.1
    held.check()
    assert document(open_storage(tmp_path))["beat"] == 3


def test_the_run_lock_chooses_by_place(s3_bucket: str, tmp_path: Path) -> None:
    with run_lock(f"{s3_bucket}/run") as held, run_lock(str(tmp_path)) as file_lock:
        held.check()
        file_lock.check()
        assert document(open_storage(f"{s3_bucket}/run"))["pid"] == os.getpid()
        (tmp_path / LOCK_NAME).unlink()
        with pytest.raises(RunLockedError, match=r"lock\.json: was removed while this process held it"):
            file_lock.check()
