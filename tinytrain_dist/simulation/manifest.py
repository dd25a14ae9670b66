"""The manifest: a log of what counts, written by the driver alone and cheap at any length.

Every commit is one small immutable segment ``journal/<number>.json``, created only if that number is free: of two
drivers one learns that it has lost the run. From time to time the segments are folded into one part, and
``manifest.json``, the snapshot, names the parts with their checksums. Many small parts become a large one, so the
list stays short and a commit costs the same after a million of them. Segments, parts and snapshot are whole or not
there; one that fails its checksum is not believed, and what it said is found again in the shards themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinytrain_dist.foundation.errors import RunLockedError, StorageError
from tinytrain_dist.foundation.hashing import bytes_hash, canonical_json
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.simulation.request import ShardRecord, record_of

_log = logger(__name__)
SNAPSHOT = "manifest.json"
JOURNAL = "journal"
MANIFEST_VERSION = 2
FOLD_SEGMENTS, FOLD_EVENTS = 256, 8192
"""A part is made of so many segments, or events, whichever come first."""
MERGED_PARTS, LARGEST_PART = 16, 65_536
"""So many parts of a level become one of the next, as long as it holds no more than so many events."""
Event = dict[str, Any]
"""``{"add": record}``, ``{"drop": [rows file, ...]}`` or ``{"void": {...}}``: see ``RunStore``."""


@dataclass
class Manifest:
    """The log of one run. ``generation`` numbers the commits; ``pending`` waits for the next one.

    Attributes
    ----------
    parts
        What the snapshot names: file, SHA-256, level and number of events of each part.
    recent
        Events of the segments that are in no part yet, by generation.
    """

    storage: Storage
    generation: int = 0
    parts: list[dict[str, Any]] = field(default_factory=list)
    recent: dict[int, list[Event]] = field(default_factory=dict)
    pending: list[Event] = field(default_factory=list)

    def open(self) -> Manifest:
        """Read snapshot and journal; raises ``RunLockedError`` for another version of the format."""
        document = _snapshot(self.storage)
        self.parts, self.generation = document["parts"], document["generation"]
        for name in list(self.storage.names(JOURNAL)):
            number = _number(name)
            if number is None or number <= document["generation"]:
                continue
            events = self._believed(name, number)
            if events is not None:
                self.recent[number] = events
            self.generation = max(self.generation, number)
        return self

    def _believed(self, name: str, number: int) -> list[Event] | None:
        data = self.storage.read_if_there(name)
        if data is None:  # folded since it was listed, which only a reader beside the driver can see
            return None
        try:
            body = _unsealed(data)
            if body["number"] == number:
                events: list[Event] = body["events"]
                return events
        except (KeyError, TypeError, ValueError):
            pass
        where = f"{self.storage.location}/{name}"
        _log.warning("%s: is damaged and not believed; its shards are looked at one by one", where)
        return None

    def commit(self) -> None:
        """Write what is pending as the next generation.

        Raises ``RunLockedError`` where another driver has written that generation.
        """
        if not self.pending:
            return
        number, events = self.generation + 1, self.pending
        data = _sealed({"number": number, "events": events})
        name = f"{JOURNAL}/{number:010d}.json"
        if not self.storage.create(name, data) and self.storage.read_if_there(name) != data:
            raise RunLockedError(f"{self.storage.location}/{name}: another driver writes to this run; this one stops")
        self.generation, self.recent[number], self.pending = number, events, []
        if len(self.recent) >= FOLD_SEGMENTS or sum(map(len, self.recent.values())) >= FOLD_EVENTS:
            self.fold()

    def fold(self) -> None:
        """Turn the journal into a part and name it in the snapshot; nothing new is said."""
        assert not self.pending
        folded = [f"{JOURNAL}/{number:010d}.json" for number in sorted(self.recent)]
        events = [event for number in sorted(self.recent) for event in self.recent[number]]
        if events:
            self.parts.append(self._write_part(events, level=0))
        folded += self._merge_parts()
        self._write_snapshot()
        self.recent = {}
        for name in folded:
            self.storage.remove(name)

    def _write_part(self, events: Sequence[Event], *, level: int) -> dict[str, Any]:
        name = f"{JOURNAL}/part-{self.generation:010d}-{level}.json"
        data = _sealed({"number": self.generation, "events": events})
        self.storage.write(name, data)
        return {"file": name, "sha256": bytes_hash(data), "level": level, "events": len(events)}

    def _merge_parts(self) -> list[str]:
        """Make one part of the last ones where there are many of a level; return the files that are replaced."""
        replaced: list[str] = []
        while len(last := self.parts[-MERGED_PARTS:]) == MERGED_PARTS:
            level = last[0]["level"]
            if any(part["level"] != level for part in last) or sum(p["events"] for p in last) > LARGEST_PART:
                break
            events = [event for part in last for event in self._part_events(part)]
            self.parts[-MERGED_PARTS:] = [self._write_part(events, level=level + 1)]
            replaced += [part["file"] for part in last]
        return replaced

    def _write_snapshot(self) -> None:
        document = {"schema_version": MANIFEST_VERSION, "generation": self.generation, "parts": self.parts}
        self.storage.write(SNAPSHOT, json.dumps(document, indent=1).encode())

    def events(self) -> Iterator[tuple[int, Event]]:
        """Yield every believed event in order, with its place in the log; one part is in memory at a time."""
        place = 0
        for part in self.parts:
            for event in self._part_events(part):
                yield place, event
                place += 1
        for number in sorted(self.recent):
            yield from enumerate(self.recent[number], start=place)
            place += len(self.recent[number])

    def _part_events(self, part: dict[str, Any]) -> Sequence[Event]:
        data = self.storage.read_if_there(part["file"])
        if data is None or bytes_hash(data) != part["sha256"]:
            where = f"{self.storage.location}/{part['file']}"
            _log.warning("%s: is missing or damaged; its shards are looked at one by one", where)
            return [{}] * int(part["events"])
        events: Sequence[Event] = _unsealed(data)["events"]
        return events

    def records(self) -> Iterator[tuple[int, ShardRecord]]:
        """Yield the shards that were added and not dropped since, with their place in the log."""
        dropped: dict[str, int] = {}
        for place, event in self.events():
            for name in event.get("drop", ()):
                dropped[name] = place
        for place, event in self.events():
            if "add" in event:
                record = record_of(event["add"])
                if place > max(dropped.get(name, -1) for name in (record.rows_file, record.name)):  # early runs: names
                    yield place, record


def _snapshot(storage: Storage) -> dict[str, Any]:
    where = f"{storage.location}/{SNAPSHOT}"
    data = storage.read_if_there(SNAPSHOT)
    if data is None:
        return {"generation": 0, "parts": []}
    document = read_json(data, where=where)
    version = document.get("schema_version")
    if version is not None and version != MANIFEST_VERSION:
        raise RunLockedError(
            f"{where}: schema version {version}; this program writes {MANIFEST_VERSION}; set run.force_new=true or "
            f"another run.id"
        )
    try:
        parts = [{key: part[key] for key in ("file", "sha256", "level", "events")} for part in document["parts"]]
        return {"generation": int(document["generation"]), "parts": parts}
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{where}: no manifest of this program ({type(error).__name__}: {error})") from error


def read_json(data: bytes, *, where: str) -> dict[str, Any]:
    """Return one JSON object; raises ``StorageError`` naming ``where`` it lies."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StorageError(f"{where}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise StorageError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def _number(name: str) -> int | None:
    stem = name.rpartition("/")[2].removesuffix(".json")
    return int(stem) if stem.isdigit() else None


def _sealed(body: dict[str, Any]) -> bytes:
    text = canonical_json(body)
    return f'{{"sha256":"{bytes_hash(text.encode())}","body":{text}}}'.encode()


def _unsealed(data: bytes) -> dict[str, Any]:
    """Return the body; raises ``ValueError``, ``KeyError`` or ``TypeError`` where the checksum does not hold."""
    document = json.loads(data)
    body: dict[str, Any] = document["body"]
    if bytes_hash(canonical_json(body).encode()) != document["sha256"]:
        raise ValueError("checksum")
    return body
