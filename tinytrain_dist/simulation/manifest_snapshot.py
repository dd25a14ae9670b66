"""``manifest.json``: which parts of the log there are; sealed, and found again from the parts where it is damaged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tinytrain_dist.foundation.errors import RunLockedError
from tinytrain_dist.foundation.hashing import bytes_hash, canonical_json
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.simulation.sealing import unsealed

_log = logger(__name__)
SNAPSHOT = "manifest.json"
JOURNAL = "journal"
MANIFEST_VERSION = 3
_UNSEALED_VERSION = 2
Part = dict[str, Any]
"""``file``, ``sha256``, ``level``, number of ``events``, and the generations it holds: ``first`` to ``number``."""


@dataclass(frozen=True)
class Snapshot:
    """What ``manifest.json`` says, and the version of the file to replace (``None``: there is none)."""

    generation: int
    parts: list[Part]
    version: str | None

    @staticmethod
    def read(storage: Storage) -> Snapshot:
        """Read the snapshot; raises ``RunLockedError`` where it is of another version of the format."""
        found = storage.read_version(SNAPSHOT)
        data, version = found or (None, None)
        document = None if data is None else _document(data, where=f"{storage.location}/{SNAPSHOT}")
        if document is None:
            return _recovered(storage, version, is_damaged=data is not None)
        return Snapshot(document["generation"], document["parts"], version)


def snapshot_bytes(generation: int, parts: list[Part]) -> bytes:
    """Return the document that names ``parts``."""
    document = {"schema_version": MANIFEST_VERSION, "generation": generation, "parts": parts}
    return json.dumps(document | {"sha256": _seal(document)}, indent=1).encode()


def part_name(number: int, level: int, digest: str) -> str:
    """Return the file of a part: no two drivers ever write different parts under one name."""
    return f"{JOURNAL}/part-{number:010d}-{level}-{digest[:8]}.json"


def segment_name(number: int) -> str:
    """Return the file of one commit."""
    return f"{JOURNAL}/{number:010d}.json"


def segment_number(name: str) -> int | None:
    """Return the generation of a segment's file, ``None`` of another file."""
    stem = name.rpartition("/")[2].removesuffix(".json")
    return int(stem) if stem.isdigit() else None


def _seal(document: dict[str, Any]) -> str:
    return bytes_hash(canonical_json(document).encode())


def _document(data: bytes, *, where: str) -> dict[str, Any] | None:
    """Return generation and parts, ``None`` where the file is damaged."""
    try:
        document = json.loads(data)
        version, seal = document.pop("schema_version"), document.pop("sha256", None)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if version not in (_UNSEALED_VERSION, MANIFEST_VERSION):
        raise RunLockedError(
            f"{where}: schema version {version}; this program writes {MANIFEST_VERSION}; set run.force_new=true or "
            f"another run.id"
        )
    if (version != _UNSEALED_VERSION or seal is not None) and seal != _seal({"schema_version": version, **document}):
        return None
    try:
        return {"generation": int(document["generation"]), "parts": _with_spans(document["parts"])}
    except (KeyError, TypeError, ValueError):
        return None


def _with_spans(parts: list[Part]) -> list[Part]:
    """Return the parts; those of the unsealed version say in their names which generation they end with."""
    found: list[Part] = []
    for part in parts:
        number = part.get("number", int(part["file"].rpartition("/part-")[2].partition("-")[0]))
        first = part.get("first", found[-1]["number"] + 1 if found else 1)
        found.append(
            {key: part[key] for key in ("file", "sha256", "level", "events")} | {"first": first, "number": number}
        )
    return found


def _recovered(storage: Storage, version: str | None, *, is_damaged: bool) -> Snapshot:
    """Return the longest log that the parts themselves make: what they lack is found in the shards."""
    candidates = [part for name in storage.names(JOURNAL) if (part := _part_at(storage, name)) is not None]
    parts: list[Part] = []
    for part in sorted(candidates, key=lambda part: (part["first"], -part["number"])):
        if part["first"] > (parts[-1]["number"] if parts else 0):
            parts.append(part)
    if is_damaged or parts:
        where = f"{storage.location}/{SNAPSHOT}"
        _log.warning("%s: is missing or damaged; found again from %d parts of the journal", where, len(parts))
    return Snapshot(max((part["number"] for part in parts), default=0), parts, version)


def _part_at(storage: Storage, name: str) -> Part | None:
    data = storage.read_if_there(name) if "/part-" in name else None
    try:
        body = unsealed(data or b"")
        return {
            "file": name, "sha256": bytes_hash(data or b""), "level": int(body["level"]),
            "events": len(body["events"]), "first": int(body["first"]), "number": int(body["number"]),
        }  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None
