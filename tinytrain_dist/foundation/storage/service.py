"""What differs between object store services, and the bounds all of them are used with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from tinytrain_dist.foundation.errors import ConfigError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSStore, RetryConfig, S3Store
    from pyarrow.fs import FileSystem

CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """One object store service: how its clients are made and what its users have to set."""

    endpoint: Callable[[], str]
    object_store: Callable[[str, str], S3Store | GCSStore]
    arrow_filesystem: Callable[[], FileSystem]
    endpoint_setting: str
    credential_settings: tuple[str, ...]
    credential_hint: str
    secrets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How long one request may take and for how long failed ones are tried again, in seconds."""

    request_s: float
    retry_s: float

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Bounds:
        """Return the bounds set in the environment, else 60 s a request and 10 s of trying again."""
        return cls(
            request_s=_seconds(environment, "TINYTRAIN_STORAGE_TIMEOUT_S", 60.0),
            retry_s=_seconds(environment, "TINYTRAIN_STORAGE_RETRY_S", 10.0),
        )

    def client(self, *, endpoint: str) -> ClientConfig:
        """Return obstore's client options; plain HTTP only for an endpoint that asks for it."""
        return {
            "timeout": timedelta(seconds=self.request_s),
            "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT_S, self.request_s)),
            "allow_http": endpoint.startswith("http://"),
        }

    def retries(self) -> RetryConfig:
        """Return obstore's retry options: up to about ``retry_s`` from the first failure on."""
        backoff = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2.0), "base": 2}
        return {
            "max_retries": 10,
            "retry_timeout": timedelta(seconds=self.retry_s),
            "backoff": backoff,  # type: ignore[typeddict-item]
        }


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 3600.0:
        raise ConfigError(f"environment variable {name}: {text!r} is no number of seconds between 0 and 3600")
    return value
