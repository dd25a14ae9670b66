"""From a location to its storage."""

from __future__ import annotations

from pathlib import Path

from tinytrain_dist.foundation.errors import ConfigError, nearest
from tinytrain_dist.foundation.paths import local_path
from tinytrain_dist.foundation.storage.contract import Storage
from tinytrain_dist.foundation.storage.local import LocalStorage

SCHEMES = ("file://",)


def open_storage(location: str | Path) -> Storage:
    """Return the storage at a local path, or ``file://`` location.

    Raises
    ------
    ConfigError
        The scheme is unknown or the URI is malformed.
    """
    text = str(location)
    scheme, separator, _ = text.partition("://")
    if not separator or scheme == "file":
        return LocalStorage(str(local_path(text, what="storage location")))
    hint = nearest(f"{scheme}://", SCHEMES)
    raise ConfigError(f"storage location {text!r}: scheme {scheme!r} is unknown; use a local path or {hint}")
