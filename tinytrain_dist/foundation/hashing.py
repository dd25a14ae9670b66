"""Content hashes: the identity of everything that travels or is stored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces; dataclasses and tuples are accepted."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_encode, allow_nan=False)


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def content_hash(value: Any, *, length: int = 16) -> str:
    """Return the first ``length`` hex digits of the SHA-256 of the value's canonical JSON."""
    return bytes_hash(canonical_json(value).encode(), length=length)


def bytes_hash(data: bytes | memoryview, *, length: int = 64) -> str:
    """Return the first ``length`` hex digits of the SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()[:length]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
