"""Google Cloud Storage; everything about the account comes from the environment."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from tinytrain_dist.foundation.storage.service import Bounds, Service

if TYPE_CHECKING:
    from obstore.store import GCSStore
    from pyarrow.fs import FileSystem

_CREDENTIALS = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SKIP_SIGNATURE",
)


def endpoint() -> str:
    """Return the endpoint's URL that is set, or an empty text for Google's own."""
    return os.environ.get("GOOGLE_BASE_URL", "")


def object_store(bucket: str, prefix: str) -> GCSStore:
    """Return obstore's client of one folder."""
    from obstore.store import GCSStore

    bounds, url = Bounds.of(), endpoint()
    return GCSStore(
        bucket,
        prefix=prefix or None,
        client_options=bounds.client(endpoint=url),
        retry_config=bounds.retries(),
    )


def arrow_filesystem() -> FileSystem:
    """Return Arrow's client of the same service."""
    from pyarrow.fs import GcsFileSystem

    scheme, _, host = (endpoint() or "https://").partition("://")
    return GcsFileSystem(
        scheme=scheme,
        endpoint_override=host.rstrip("/") or None,
        retry_time_limit=timedelta(seconds=max(1.0, Bounds.of().retry_s)),
    )


SERVICE = Service(
    endpoint=lambda: endpoint() or "https://storage.googleapis.com",
    object_store=object_store,
    arrow_filesystem=arrow_filesystem,
    endpoint_setting="GOOGLE_BASE_URL",
    credential_settings=_CREDENTIALS,
    credential_hint="set GOOGLE_APPLICATION_CREDENTIALS in the environment to the path of a key file",
    secrets=("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"),
)
