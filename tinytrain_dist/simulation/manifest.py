"""The manifest: a log of what counts, written by the driver alone and cheap at any length.

Every commit is one small immutable segment ``journal/<number>.json``, created only if that number is free: of two
drivers one learns that it has lost the run. From time to time the segments are folded into one part, and
``manifest.json``, the snapshot, names the parts with their checksums. Many small parts become a large one, so the
list stays short and a commit costs the same after a million of them. The snapshot is replaced under the version its
driver read, so a driver that was frozen while another took over cannot write over it. Segments, parts and snapshot
are whole or not there; one that fails its checksum is not believed, and what it said is found again: the snapshot's
in the parts, theirs in the shards themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinytrain_dist.foundation.errors import RunLockedError, StorageError
from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.simulation.manifest_snapshot import (
    JOURNAL,
    SNAPSHOT,
    Part,
    Snapshot,
    part_name,
    segment_name,
    segment_number,
    snapshot_bytes,
)
from tinytrain_dist.simulation.request import ShardRecord, record_of
from tinytrain_dist.simulation.sealing import sealed, unsealed

_log = logger(__name__)
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
    guard
        Called before every change; raises where the run's lock has been lost.
    """

    storage: Storage
    generation: int = 0
    parts: list[Part] = field(default_factory=list)
    recent: dict[int, list[Event]] = field(default_factory=dict)
    pending: list[Event] = field(default_factory=list)
    guard: Callable[[], None] = lambda: None
    _version: str | None = None
    _folded: int = 0

    def open(self) -> Manifest:
        """Read snapshot and journal; raises ``RunLockedError`` for another version of the format."""
        found = Snapshot.read(self.storage)
        self.parts, self.generation, self._version = found.parts, found.generation, found.version
        self._folded = found.generation
        for name in list(self.storage.names(JOURNAL)):
            number = segment_number(name)
            if number is None or number <= found.generation:
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
            body = unsealed(data)
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
        data = sealed({"number": number, "events": events})
        name = segment_name(number)
        self.guard()
        if not self.storage.create(name, data) and self.storage.read_if_there(name) != data:
            raise RunLockedError(f"{self.storage.location}/{name}: another driver writes to this run; this one stops")
        self.generation, self.recent[number], self.pending = number, events, []
        if len(self.recent) >= FOLD_SEGMENTS or sum(map(len, self.recent.values())) >= FOLD_EVENTS:
            self.fold()

    def fold(self) -> None:
        """Turn the journal into a part and name it in the snapshot; nothing new is said.

        Raises ``RunLockedError`` where another driver has replaced the snapshot.
        """
        assert not self.pending
        events = [event for number in sorted(self.recent) for event in self.recent[number]]
        if events:
            self.parts.append(self._write_part(events, first=self._folded + 1, level=0))
        self._merge_parts()
        lying = list(self.storage.names(JOURNAL))
        self._write_snapshot()
        self.recent, self._folded = {}, self.generation
        named = {part["file"] for part in self.parts}
        for name in lying:  # what is folded now, and what a driver that died while folding left
            if name not in named and (segment_number(name) or 0) <= self.generation:
                self.guard()
                self.storage.remove(name)

    def confirm(self) -> None:
        """Raise ``RunLockedError`` unless snapshot and journal still end with what this driver wrote or read."""
        found, following = self.storage.read_version(SNAPSHOT), segment_name(self.generation + 1)
        if (found and found[1]) != self._version or self.storage.size(following) is not None:
            raise RunLockedError(f"{self.storage.location}: another driver writes to this run; this one stops")

    def _write_part(self, events: Sequence[Event], *, first: int, level: int) -> Part:
        span = {"first": first, "number": self.generation, "level": level}
        data = sealed(span | {"events": events})
        digest = bytes_hash(data)
        name = part_name(self.generation, level, digest)
        self.guard()
        self.storage.write(name, data)
        return span | {"file": name, "sha256": digest, "events": len(events)}

    def _merge_parts(self) -> None:
        """Make one part of the last ones where there are many of a level."""
        while len(last := self.parts[-MERGED_PARTS:]) == MERGED_PARTS:
            level = last[0]["level"]
            if any(part["level"] != level for part in last) or sum(p["events"] for p in last) > LARGEST_PART:
                break
            events = [event for part in last for event in self._part_events(part)]
            self.parts[-MERGED_PARTS:] = [self._write_part(events, first=last[0]["first"], level=level + 1)]

    def _write_snapshot(self) -> None:
        data = snapshot_bytes(self.generation, self.parts)
        self.guard()
        version = self.storage.replace_if(SNAPSHOT, data, version=self._version)
        if version is None:
            found = self.storage.read_version(SNAPSHOT)
            if found is None or found[0] != data:  # equal: ours, and only the answer was lost
                where = f"{self.storage.location}/{SNAPSHOT}"
                raise RunLockedError(f"{where}: another driver writes to this run; this one stops")
            version = found[1]
        self._version = version

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
        events: Sequence[Event] = unsealed(data)["events"]
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


def read_json(data: bytes, *, where: str) -> dict[str, Any]:
    """Return one JSON object; raises ``StorageError`` naming ``where`` it lies."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StorageError(f"{where}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise StorageError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value
