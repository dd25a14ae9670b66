"""From what a client library reports to one sentence: what failed where, what was tried, what to set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.storage.service import Service

_CODE = re.compile(r"<Code>(.*?)</Code>", re.DOTALL)
_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_TRIED = re.compile(r" in ([\d.]+)(m?)s(?:, after (\d+) retries)?")
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")
_MAX_REASON = 300
_ACCOUNT_CODES = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}

_ACCOUNT_STATUS = (" 401 ", " 403 ")
_ROLE_MARKS = (*_ACCOUNT_STATUS, "/latest/api/token", "/latest/meta-data", "computeMetadata")


@contextmanager
def named(uri: str, done: str, *, service: Service) -> Iterator[None]:
    """Turn every error of a client library inside into a ``StorageError`` that names ``uri``."""
    try:
        from obstore.exceptions import BaseError
    except ImportError as error:
        raise StorageError(f"{uri}: object stores need the package obstore: pip install obstore") from error
    try:
        yield
    except (BaseError, OSError) as error:
        raise StorageError(f"{uri}: cannot be {done}: {_reason(str(error), service)}") from None


def is_missing_bucket(error: Exception) -> bool:
    """Say whether it is the bucket, not the object, that the service does not have."""
    return "NoSuchBucket" in str(error)


def _reason(text: str, service: Service) -> str:
    summary, _, debug = text.partition("\n\nDebug source")
    code = _first(_CODE, summary)
    if _asked_for_credentials(summary, code, service):
        return f"{_said(summary, code, service)}, and the environment holds no credentials; {service.credential_hint}"
    if code == "NoSuchBucket":
        return f"there is no such bucket at {service.endpoint()}; create it or correct the location"
    if code in _ACCOUNT_CODES or any(status in summary for status in _ACCOUNT_STATUS):
        return f"{_said(summary, code, service)} at {service.endpoint()}; {service.credential_hint}"
    if "kind: Connect" in debug:
        where = f"{service.endpoint()} cannot be reached"
        return f"{where} ({_tried(summary)}); check {service.endpoint_setting} and the network"
    if "kind: Timeout" in debug:
        where = f"{service.endpoint()} does not answer in time"
        return f"{where} ({_tried(summary)}); check {service.endpoint_setting} or raise TINYTRAIN_STORAGE_TIMEOUT_S"
    return f"{_said(summary, code, service)} at {service.endpoint()} ({_tried(summary)})"


def _asked_for_credentials(summary: str, code: str, service: Service) -> bool:
    """Say whether it failed for want of credentials: none are set and no machine's own role was found either."""
    if any(os.environ.get(name) for name in service.credential_settings):
        return False
    return code in _ACCOUNT_CODES or any(mark in summary for mark in _ROLE_MARKS)


def _said(summary: str, code: str, service: Service) -> str:
    """Return what the service said, without anything it repeats of the account."""
    if code:
        said = f"{code}: {_first(_MESSAGE, summary)}".rstrip(": ")
    else:
        said = _first(_STATUS, summary) or summary.rpartition(" - ")[2].strip()
    for name in service.secrets:
        if os.environ.get(name):
            said = said.replace(os.environ[name], "***")
    return said[:_MAX_REASON]


def _tried(summary: str) -> str:
    found = _TRIED.search(summary)
    if found is None:
        return "tried once"
    times, seconds = 1 + int(found[3] or 0), float(found[1]) / (1000 if found[2] else 1)
    return f"tried {times} time{'s' * (times > 1)} in {seconds:.1f} s"


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1].strip() if found else ""
