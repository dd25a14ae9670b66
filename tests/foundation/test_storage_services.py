"""A service that refuses, is slow, forgets to answer or knows us not: one clear error each, in bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from s3_server import REFUSED, proxy_to, set_account

from tinytrain_dist.foundation.errors import ConfigError, ExitCode, StorageError
from tinytrain_dist.foundation.storage import Storage, open_storage

ASKED: list[Callable[[Storage], object]] = [
    lambda storage: storage.write("x", b"1"),
    lambda storage: storage.create("x", b"1"),
    lambda storage: storage.replace_if("x", b"1", version='["\\"abc\\"", null]'),
    lambda storage: storage.read_if_there("x"),
    lambda storage: storage.size("x"),
    lambda storage: storage.remove("x"),
    lambda storage: list(storage.names("x")),
]


def failure(storage: Storage, ask: Callable[[Storage], object]) -> str:
    with pytest.raises(StorageError) as caught:
        ask(storage)
    assert caught.value.exit_code == ExitCode.STORAGE
    text = str(caught.value)
    assert text.startswith(storage.location) and "\n" not in text and len(text) < 500
    assert "secret-of-the-test" not in text and "AKIATESTKEY" not in text
    return text


@pytest.mark.slow  # waits for the bound it checks
def test_a_refused_endpoint_fails_within_15_s_as_the_settings_are(monkeypatch: pytest.MonkeyPatch) -> None:
    set_account(monkeypatch, REFUSED)
    monkeypatch.delenv("TINYTRAIN_STORAGE_RETRY_S")
    started = time.monotonic()
    text = failure(open_storage("s3://bucket/run"), lambda storage: storage.write("x", b"1"))
    assert time.monotonic() - started < 15
    assert "s3://bucket/run/x: cannot be written: http://127.0.0.1:9 cannot be reached (tried " in text
    assert text.endswith("; check AWS_ENDPOINT_URL and the network")


@pytest.mark.parametrize("ask", ASKED)
def test_every_question_to_a_refused_endpoint_fails_alike(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[Storage], object]
) -> None:
    set_account(monkeypatch, REFUSED)
    monkeypatch.setenv("TINYTRAIN_STORAGE_RETRY_S", "0.01")
    assert f"{REFUSED} cannot be reached (tried " in failure(open_storage("s3://bucket/run"), ask)


@pytest.mark.parametrize("ask", ASKED)
def test_a_bucket_that_is_not_there_is_no_missing_file(s3_bucket: str, ask: Callable[[Storage], object]) -> None:
    assert "there is no such bucket at http://127.0.0.1:" in failure(open_storage(f"{s3_bucket}-wrong/run"), ask)


def test_a_slow_endpoint_is_given_up_in_bounded_time(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(f"{s3_bucket}/run")
    with proxy_to(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("TINYTRAIN_STORAGE_TIMEOUT_S", "0.5")
        patient = open_storage(storage.location)
        patient.write("x", b"1")
        proxy.delay_s = 3.0
        started = time.monotonic()
        text = failure(patient, lambda storage: storage.read("x"))
        assert time.monotonic() - started < 2.5
    assert f"{proxy.url} does not answer in time (tried " in text
    assert "raise TINYTRAIN_STORAGE_TIMEOUT_S" in text


def test_a_moment_of_slowness_only_costs_time(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy_to(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        storage = open_storage(f"{s3_bucket}/run")
        proxy.delay_s = 0.2
        storage.write("x", b"1")
        assert storage.read("x") == b"1"


def test_a_lost_answer_never_makes_two_winners(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy_to(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        storage = open_storage(f"{s3_bucket}/run")
        proxy.lost_answers = 1
        try:
            said = storage.create("x", b"mine")
        except StorageError:
            said = False  # nobody knows, and nobody is told that it was stored
        assert not said
        assert proxy.lost_answers == 0
        assert storage.read("x") == b"mine" and not storage.create("x", b"theirs")


@pytest.mark.parametrize(
    ("missing", "disabled", "message"),
    [
        (["AWS_SECRET_ACCESS_KEY"], "", "AWS_SECRET_ACCESS_KEY is missing from the environment"),
        (["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "true", "no credentials; set AWS_ACCESS_KEY_ID and"),
    ],
)
def test_missing_credentials_are_named(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, missing: list[str], disabled: str, message: str
) -> None:
    for name in missing:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", disabled)
    assert message in failure(open_storage(f"{s3_bucket}/run"), lambda storage: storage.read("x"))


def test_an_instance_without_a_role_is_said_so_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    set_account(monkeypatch, REFUSED)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", REFUSED)
    started = time.monotonic()
    text = failure(open_storage("s3://bucket/run"), lambda storage: storage.read("x"))
    assert time.monotonic() - started < 5
    assert "the environment holds no credentials; set AWS_ACCESS_KEY_ID" in text


def test_a_refused_gcs_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_BASE_URL", REFUSED)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "secret-of-the-test")
    monkeypatch.setenv("TINYTRAIN_STORAGE_RETRY_S", "0.5")
    text = failure(open_storage("gs://bucket/run"), lambda storage: storage.read("x"))
    assert "http://127.0.0.1:9 cannot be reached" in text and text.endswith("check GOOGLE_BASE_URL and the network")


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "1e9"])
def test_bounds_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    set_account(monkeypatch, REFUSED)
    monkeypatch.setenv("TINYTRAIN_STORAGE_TIMEOUT_S", value)
    with pytest.raises(ConfigError, match=r"TINYTRAIN_STORAGE_TIMEOUT_S: '.*' is no number of seconds"):
        open_storage("s3://bucket/run").read("x")


def test_local_folders_load_no_client_library() -> None:
    code = (
        "import sys, tempfile\nfrom tinytrain_dist.foundation.storage import open_storage\n"
        "s = open_storage(tempfile.mkdtemp())\ns.write('a', b'1')\ns.read('a')\nlist(s.names())\n"
        "print([name for name in ('obstore', 'pyarrow', 'boto3') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
