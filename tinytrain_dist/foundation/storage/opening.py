"""From a location to its storage."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.foundation.errors import ConfigError
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.foundation.storage.contract import Storage
from tinytrain_dist.foundation.storage.local import LocalStorage

SCHEMES = ("file://", "s3://", "gs://")


def open_storage(location: str | Path) -> Storage:
    """Return the storage at a local path, ``file://``, ``s3://`` or ``gs://`` location; nothing is contacted yet.

    Raises
    ------
    ConfigError
        The scheme is unknown or the URI is malformed.
    """
    text = str(location)
    scheme, separator, _ = text.partition("://")
    if not separator or scheme == "file":
        return LocalStorage(str(local_path(text, what="storage location")))
    if f"{scheme}://" not in SCHEMES:
        allowed = ", ".join(SCHEMES)
        raise ConfigError(f"storage location {scheme}://...: this scheme is unknown; allowed: a local path, {allowed}")
    from tinytrain_dist.foundation.storage.objects import ObjectStorage

    return ObjectStorage.at(text)
