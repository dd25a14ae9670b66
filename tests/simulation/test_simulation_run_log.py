"""``log.jsonl``: what happened stands there, in few lines, without secrets; and nothing depends on it."""

from __future__ import annotations

import json
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from s3_server import proxy_to, set_account
from test_simulation_dispatch import FakeExecutor, backlog_of
from tiny_simulation import chunks_of, run, tiny_settings

from tinytrain_dist.foundation.errors import RunLockedError, StorageError, TooManyFailuresError
from tinytrain_dist.foundation.interrupts import interrupt_code
from tinytrain_dist.foundation.redaction import REDACTED
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.simulation.computing import Computation
from tinytrain_dist.simulation.dispatch import Dispatcher
from tinytrain_dist.simulation.engine import SimulationResult
from tinytrain_dist.simulation.log_file import LOG, OLDER, PART_BYTES, log_file
from tinytrain_dist.simulation.run_log import FIRST, MAX_TEXT, MAX_WAITING, RETRY_S, RunLog
from tinytrain_dist.simulation.settings import DispatchSettings
from tinytrain_dist.simulation.status import RunStatus

TINY = {"domains": ("signs",), "methods": ("raw_pixels",), "dispatch": chunks_of(0.001)}


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(folder: Path, name: str = LOG) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def events(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines]


def say_ticks(log: RunLog, count: int, *, length: int) -> None:
    for number in range(count):
        log.say("tick", number=number, text="x" * length)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> SimulationResult:
    """A run of two tasks, extended by a third one, then asked for again."""
    root = tmp_path_factory.mktemp("log")
    run(tiny_settings(**TINY, num_tasks=2), root, run_id="mine", config={"command": "simulate token=abcdefgh"})
    run(tiny_settings(**TINY, num_tasks=3), root, run_id="mine")
    return run(tiny_settings(**TINY, num_tasks=3), root, run_id="mine")


def test_the_log_tells_what_each_command_did(first: SimulationResult) -> None:
    lines = lines_of(first.folder)
    starts = [place for place, event in enumerate(events(lines)) if event == "locked"]
    whole, extended, again = (lines[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True))
    assert events(whole)[:4] == ["locked", "start", "planned", "dispatched"]
    assert [(line["before"], line["number"]) for line in whole if line["event"] == "workers"] == [(0, 1)]
    assert [events(part)[1] for part in (extended, again)] == ["resume", "resume"]
    assert whole[0]["by"] == "file" and (whole[1]["run"], whole[1]["executor"]) == ("mine", "serial")
    assert [part[2]["to_compute"] for part in (whole, extended, again)] == [2, 1, 0]
    assert [part[2]["reused"] for part in (whole, extended, again)] == [0, 2, 3]
    sent = [(line["first_task"], line["tasks"]) for line in whole if line["event"] == "dispatched"]
    assert sent == [(0, 1), (1, 1)]
    assert sum(line["shards"] for line in whole if line["event"] == "committed") == 2
    assert events(again) == ["locked", "resume", "planned", "stop"], "nothing to compute, little to say"
    for part in (whole, extended, again):
        stop = part[-1]
        assert (stop["event"], stop["reason"], stop["exit_code"], stop["lines_lost"]) == ("stop", "done", 0, 0)
        assert stop["events"] == dict(Counter(events(part[:-1])))
        assert [line["elapsed_s"] for line in part] == sorted(line["elapsed_s"] for line in part)
    assert whole[1]["command"] == f"simulate token={REDACTED}"


def test_why_a_run_ended_early_stands_in_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [TooManyFailuresError("2 of 3 tasks failed"), KeyboardInterrupt(), ZeroDivisionError("a bug")]

    def ending(self: Computation, finished: object) -> None:
        raise ends[0]

    monkeypatch.setattr(Computation, "enter", ending)
    codes = (6, int(interrupt_code()), None)
    for code, error in zip(codes, list(ends), strict=True):
        with pytest.raises(type(error)):
            run(tiny_settings(**TINY), tmp_path, run_id="mine")
        last = lines_of(tmp_path / "mine")[-1]
        assert (last["event"], last.get("exit_code")) == ("stop", code)
        assert (str(error) in last.get("message", "")) and last["reason"]
        ends.pop(0)


@pytest.mark.parametrize("trouble", ["a folder in its place", "a link in its place"])
def test_a_log_that_cannot_be_written_changes_nothing(first: SimulationResult, tmp_path: Path, trouble: str) -> None:
    place, outside = tmp_path / "mine" / LOG, tmp_path / "outside"
    place.parent.mkdir()
    if trouble.startswith("a folder"):
        place.mkdir()
    else:
        place.symlink_to(outside)
    other = run(tiny_settings(**TINY, num_tasks=3), tmp_path, run_id="mine")
    assert other.result_hash == first.result_hash and other.exit_code == 0
    assert (other.folder / "_SUCCESS").is_file() and not outside.exists()


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``num_bytes``, as if the disk were full."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_whole_lines_and_what_waited_is_written_later(tmp_path: Path) -> None:
    clock = Clock()
    log, status = RunLog(clock=clock), RunStatus(open_storage(tmp_path), total=1, cached=0)
    with log.kept_in(log_file(open_storage(tmp_path))):
        say_ticks(log, 3, length=100)
        log.keep_up(status)
        with largest_file((tmp_path / LOG).stat().st_size + 50):
            clock.now = 2.0
            say_ticks(log, 2, length=100)
            log.keep_up(status)
            assert [line["number"] for line in lines_of(tmp_path)] == [0, 1, 2]
        clock.now += RETRY_S
        log.keep_up(status)
        log.stopped(reason="done")
    lines = lines_of(tmp_path)
    assert [line.get("number") for line in lines] == [0, 1, 2, 0, 1, None, None]
    assert events(lines)[-2:] == ["progress", "stop"] and lines[-1]["lines_lost"] == 0


def test_lines_that_find_no_place_for_long_are_lost_and_counted(tmp_path: Path) -> None:
    log = RunLog()
    for number in range(MAX_WAITING + 30):
        log.say(f"event {number}")
    with log.kept_in(log_file(open_storage(tmp_path))):
        log.stopped()
    lines = lines_of(tmp_path)
    assert len(lines) == MAX_WAITING and lines[-1]["lines_lost"] == 30
    assert (lines[0]["event"], lines[-1]["event"]) == ("event 31", "stop"), "the oldest go first"


def test_a_run_directory_that_was_removed_stays_removed(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone/log\.jsonl: cannot be written: No such file"):
        log_file(open_storage(tmp_path / "gone")).put(b"{}\n")
    with RunLog().kept_in(log_file(open_storage(tmp_path / "gone"))):
        pass
    assert not (tmp_path / "gone").exists()


def test_who_lost_the_run_writes_no_line(tmp_path: Path) -> None:
    def lost() -> None:
        raise RunLockedError("taken over")

    log = RunLog()
    with suppress(RunLockedError), log.kept_in(log_file(open_storage(tmp_path)), guard=lost):
        log.say("start")
        lost()
    assert list(tmp_path.iterdir()) == []


def test_the_chunks_of_twelve_days_are_few_lines(tmp_path: Path) -> None:
    """Every event is counted; a megabyte holds what is shown of them."""
    clock, num_chunks = Clock(), 200_000
    log, status = RunLog(clock=clock), RunStatus(open_storage(tmp_path / "status"), total=num_chunks, cached=0)
    status.write = lambda *args, **kwargs: None  # type: ignore[method-assign]  # of the status there are other tests
    with log.kept_in(log_file(open_storage(tmp_path))):
        for number in range(num_chunks):
            clock.now = 5.184 * number
            log.say("dispatched", domain="signs", first_task=number, tasks=1, attempt=1)
            if number % 2 == 0:
                log.keep_up(status)
        log.stopped()
    lines = lines_of(tmp_path)
    assert (tmp_path / LOG).stat().st_size < PART_BYTES and not (tmp_path / OLDER).exists()
    assert lines[-1]["events"] == {"dispatched": num_chunks}
    shown = [line for line in lines if line["event"] == "dispatched"]
    assert [line["first_task"] for line in shown[:FIRST]] == list(range(FIRST))
    last = shown[-1]["first_task"]
    assert len(shown) + sum(line.get("not_shown", 0) for line in shown) == last + 1, "none is forgotten"
    assert num_chunks - last < num_chunks / 100, "the last one shown is not long ago"
    progress = [line["elapsed_s"] for line in lines if line["event"] == "progress"]
    assert 200 < len(progress) < 2000
    gaps = [after - before for before, after in pairwise(progress)]
    assert min(gaps) > 9.0 and max(gaps) < 0.02 * clock.now


def test_a_full_part_takes_the_place_of_the_older_one(tmp_path: Path) -> None:
    for _ in range(6):
        log = RunLog()
        with log.kept_in(log_file(open_storage(tmp_path))):
            for number in range(500):
                log.say(f"event {number}", text="x" * MAX_TEXT)
    sizes = [(tmp_path / name).stat().st_size for name in (LOG, OLDER)]
    assert sizes[1] > PART_BYTES / 2 and max(sizes) <= PART_BYTES
    assert events(lines_of(tmp_path))[-1] == events(lines_of(tmp_path, OLDER))[-1] == "event 499"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b'{"event": "start"}\n{"event": "half a l')
    with RunLog().kept_in(log_file(open_storage(tmp_path))):
        pass
    log = RunLog()
    with log.kept_in(log_file(open_storage(tmp_path))):
        log.say("resume")
    whole, torn, next_one = (tmp_path / LOG).read_text().splitlines()
    assert torn == '{"event": "half a l' and json.loads(next_one)["event"] == "resume" and json.loads(whole)


def test_no_secret_and_no_endless_text_reaches_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "thatNobodyMaySee")
    log = RunLog()
    with log.kept_in(log_file(open_storage(tmp_path))):
        log.say("failed", message="x" * (MAX_TEXT - 8) + "thatNobodyMaySee" + "y" * 10_000, password="hidden1")
        log.say("failed", message='a "thatNobodyMaySee"\n', parts=["thatNobodyMaySee"], who=Path("/thatNobodyMaySee"))
    text = (tmp_path / LOG).read_text()
    assert "thatNobo" not in text and "hidden1" not in text and len(text) < 2000
    assert len(lines_of(tmp_path)) == 2 and REDACTED in text


def test_retries_bisections_and_lost_workers_are_told() -> None:
    executor, told = FakeExecutor(num_workers=1, bad={5: "crashed"}), []
    dispatcher = Dispatcher(
        executor, backlog_of(8, per_chunk=8), submit=executor.submit,  # type: ignore[arg-type]
        settings=DispatchSettings(max_attempts=2), say=lambda event, /, **fields: told.append((event, fields)),
    )  # fmt: skip
    assert sum(finished.chunk.num_tasks for finished in dispatcher.run() if finished is not None) == 8
    counts = Counter(event for event, _ in told)
    assert counts == {"dispatched": len(executor.submitted), "worker_lost": 5, "bisected": 3, "retried": 1}
    blamed = [(f["first_task"], f["tasks"], f["kind"], f["message"]) for e, f in told if e == "worker_lost"]
    assert blamed[0] == (0, 8, "crashed", "task 5") and blamed[-1] == (5, 1, "crashed", "task 5")
    assert [fields["parts"] for event, fields in told if event == "bisected"] == [[4, 4], [2, 2], [1, 1]]


def test_an_object_store_holds_the_same_lines(s3_bucket: str) -> None:
    storage = open_storage(f"{s3_bucket}/mine")
    for number in range(2):
        log = RunLog()
        with log.kept_in(log_file(storage)):
            log.say(f"command {number}")
    lines = [json.loads(line) for line in storage.read(LOG).splitlines()]
    assert events(lines) == ["command 0", "command 1"]
    for _ in range(2):
        log_file(storage).put(b"x" * (PART_BYTES - 10) + b"\n")
    assert [storage.size(name) for name in (LOG, OLDER)] == [PART_BYTES - 9] * 2


@pytest.mark.slow
def test_an_object_store_that_is_gone_is_asked_rarely_and_loses_nothing_that_fits(
    s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock, status = Clock(), RunStatus(open_storage(tmp_path), total=1, cached=0)
    log = RunLog(clock=clock)
    with proxy_to(s3_endpoint) as proxy:
        set_account(monkeypatch, proxy.url)
        with log.kept_in(log_file(open_storage(f"{s3_bucket}/mine"))):
            log.say("first")
            log.keep_up(status)
            for _ in range(2):
                proxy.puts_left = 0
                clock.now += RETRY_S
                log.say("while it was gone")
                log.keep_up(status)
                proxy.puts_left = None
                log.keep_up(status)  # it is back, but nobody asks so soon
            clock.now += RETRY_S
    set_account(monkeypatch, s3_endpoint)
    lines = [json.loads(line) for line in open_storage(f"{s3_bucket}/mine").read(LOG).splitlines()]
    assert [event for event in events(lines) if event != "progress"] == ["first", *["while it was gone"] * 2]
