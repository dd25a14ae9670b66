"""JSON with its checksum: what was altered or cut short is not believed."""

from __future__ import annotations

import json
from typing import Any

from tinytrain_dist.foundation.hashing import bytes_hash, canonical_json


def sealed(body: dict[str, Any]) -> bytes:
    """Return a document that holds ``body`` and the SHA-256 of its canonical JSON."""
    text = canonical_json(body)
    return f'{{"sha256":"{bytes_hash(text.encode())}","body":{text}}}'.encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """Return the body; raises ``ValueError``, ``KeyError`` or ``TypeError`` where the checksum does not hold."""
    document = json.loads(data)
    body: dict[str, Any] = document["body"]
    if bytes_hash(canonical_json(body).encode()) != document["sha256"]:
        raise ValueError("checksum")
    return body
