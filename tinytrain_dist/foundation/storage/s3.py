"""Amazon S3 and what speaks its protocol; everything about the account comes from the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.storage.service import CONNECT_TIMEOUT_S, Bounds, Service

if TYPE_CHECKING:
    from obstore.store import S3Store
    from pyarrow.fs import FileSystem

_DEFAULT_REGION = "us-east-1"
_KEY = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)


def endpoint() -> str:
    """Return the endpoint's URL that is set, or an empty text for Amazon's own."""
    return next((os.environ[n] for n in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(n)), "")


def region() -> str:
    """Return the region both clients use."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION


def object_store(bucket: str, prefix: str) -> S3Store:
    """Return obstore's client of one folder; raises ``StorageError`` where no credentials can be found."""
    from obstore.store import S3Store

    _check_credentials(f"s3://{bucket}/{prefix}")
    bounds, url = Bounds.of(), endpoint()
    return S3Store(
        bucket,
        prefix=prefix or None,
        config={"region": region(), "disable_bulk_delete": True, **({"endpoint": url} if url else {})},
        client_options=bounds.client(endpoint=url),
        retry_config=bounds.retries(),
    )


def arrow_filesystem() -> FileSystem:
    """Return Arrow's client of the same service."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    scheme, _, host = (endpoint() or "https://").partition("://")
    return S3FileSystem(
        region=region(),
        scheme=scheme,
        endpoint_override=host.rstrip("/") or None,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=Bounds.of().request_s,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=3),
    )


def _check_credentials(location: str) -> None:
    """Refuse at once half a key, and what would only end in a search for an instance's role that is switched off."""
    missing = [name for name in _KEY if not os.environ.get(name)]
    if len(missing) == 1:
        raise StorageError(f"{location}: {missing[0]} is missing from the environment; {SERVICE.credential_hint}")
    disabled = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    if disabled and not any(os.environ.get(name) for name in _CREDENTIALS):
        raise StorageError(f"{location}: no credentials; {SERVICE.credential_hint}")


SERVICE = Service(
    endpoint=lambda: endpoint() or f"https://s3.{region()}.amazonaws.com",
    object_store=object_store,
    arrow_filesystem=arrow_filesystem,
    endpoint_setting="AWS_ENDPOINT_URL",
    credential_settings=_CREDENTIALS,
    credential_hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) in the environment",
    secrets=(*_KEY, "AWS_SESSION_TOKEN"),
)
