"""The run directory: shards are written by workers, and only the driver's manifest says which ones count.

What the manifest's log may say: a shard is added; shards are dropped (their files are missing or altered); cells
are void from here on (a device's profile has changed, or what failed is to be tried again). A shard is only added
where nothing is covered: one that overlaps earlier ones says that a void between them was lost with a damaged
segment, and the later rows count. Whatever is not covered after reading the log to the end is computed. A shard of
this run that no log names, because its driver died first, is adopted if it is whole and holds only missing cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.foundation.storage.local import LocalStorage
from tinytrain_dist.simulation.coverage import Coverage
from tinytrain_dist.simulation.manifest import Manifest
from tinytrain_dist.simulation.ranges import Ranges, num_in, ranges_of
from tinytrain_dist.simulation.request import Cells, Chunk, ShardRecord, cells_of, record_of
from tinytrain_dist.simulation.run_log import Say, unsaid
from tinytrain_dist.simulation.shard_files import SHARD_FOLDERS, read_rows, testimony
from tinytrain_dist.simulation.voids import Void, void_rows, voids_of

_log = logger(__name__)
READERS = 8
"""Files looked at together: on an object store each look is a request."""
RETRIED = ("crashed", "timeout", "error")


class RunStore:
    """Shards and manifest of one run, held by one driver.

    Parameters
    ----------
    identity
        Hash of what decides the run's numbers: only shards that name it are adopted.
    profiles
        Content hash of every device profile of the request.
    guard
        Called before every change; raises where the run's lock has been lost.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        identity: str = "",
        profiles: dict[str, str] | None = None,
        guard: Callable[[], None] = lambda: None,
        say: Say = unsaid,
    ) -> None:
        self.storage, self.coverage = storage, Coverage()
        self._identity, self._profiles, self.guard = identity, profiles or {}, guard
        self._tell = say
        self._manifest = Manifest(storage, guard=guard)
        self._sources = Sources({})
        self._superseded: list[Void] = []
        self._priced: dict[str, set[str]] = {}  # profiles that rows of a device were made with

    @property
    def generation(self) -> int:
        """Number of the last commit: the same number, the same rows."""
        return self._manifest.generation

    def open(self) -> None:
        """Read the manifest, drop what is not as it says, void what has another price, adopt what was left."""
        self._manifest.open()
        self._drop_damaged()
        self._replay()
        known = {path for _, event in self._manifest.events() for path in event.get("add", {}).get("files", ())}
        self._adopt(path for path in self.storage.names("shards") if path not in known)
        self._sources = Sources.of(record for _, record in self.records())

    def _drop_damaged(self) -> None:
        damaged: list[str] = []
        with ThreadPoolExecutor(READERS) as readers:
            records = (record for _, record in self.records())
            while batch := list(islice(records, 1024)):
                whole = readers.map(self._is_whole, batch)
                damaged += [record.rows_file for record, good in zip(batch, whole, strict=True) if not good]
        if damaged:
            names = ", ".join(damaged[:3]) + (", ..." if len(damaged) > 3 else "")
            where = self.storage.location
            _log.warning("%s: %d shards are missing or damaged (%s); computed again", where, len(damaged), names)
            self._tell("damaged", shards=len(damaged), first=damaged[0])
            self._say({"drop": damaged})

    def _is_whole(self, record: ShardRecord) -> bool:
        found = ((self.storage.read_if_there(path), digest) for path, digest in record.files.items())
        return all(data is not None and bytes_hash(data) == digest for data, digest in found)

    def _replay(self) -> None:
        """Mark what the log covers; void the rows of devices whose profile is no longer the one they were made with."""
        live = {place for place, _ in self.records()}
        priced = self._priced
        for place, event in self._manifest.events():
            if "void" in event:
                self._void(event["void"])
            elif "add" in event and place in live:
                added = event["add"]
                ranges, cells = _ranges(added["ranges"]), cells_of(added["cells"])
                if self.coverage.touches(added["domain"], ranges, cells):
                    self._supersede(place, added)
                self.coverage.mark(added["domain"], ranges, cells)
                for device, digest in added["profiles"].items():
                    priced.setdefault(device, set()).add(digest)
        for device in sorted(d for d in priced if priced[d] - {self._profiles.get(d)} and d in self._profiles):
            _log.warning("%s: profile %s has changed; its rows are priced again", self.storage.location, device)
            self._tell("repriced", device=device)
            self._say({"void": {"device": device}})
            del priced[device]
            self.coverage.clear_device(device)

    def _supersede(self, place: int, added: dict[str, Any]) -> None:
        """Void what a shard replaces where the void that made room for it was lost."""
        where, file = self.storage.location, record_of(added).rows_file
        _log.warning("%s: %s replaces rows whose void was lost with its segment; the later ones count", where, file)
        self._superseded.append((place, {key: added[key] for key in ("domain", "ranges", "cells")}))

    def _void(self, void: dict[str, object]) -> None:
        if "device" in void:
            self.coverage.clear_device(str(void["device"]))
            self._priced.pop(str(void["device"]), None)
        else:
            ranges, cells = _ranges(void["ranges"]), cells_of(void["cells"])
            self.coverage.mark(str(void["domain"]), ranges, cells, done=False)

    def _adopt(self, orphans: Iterable[str]) -> None:
        adopted = [self._adopted(path) for path in orphans]
        self.commit()
        if any(adopted):
            where = self.storage.location
            _log.info("%s: %d finished shards that no manifest named are adopted", where, sum(adopted))
            self._tell("adopted", shards=sum(adopted))
        if not all(adopted):
            self.remove_strays()

    def _adopted(self, path: str) -> bool:
        found = testimony(path, self.storage.read(path))
        if found is None or found[0] != self._identity or not self._is_whole(found[1]):
            return False
        return self._has_price_of(found[1]) and self.add(found[1])

    def _has_price_of(self, record: ShardRecord) -> bool:
        """Say whether the rows have this command's profiles; of a device it does not name, the run's or the first."""
        for device, digest in record.profiles.items():
            known = self._profiles.get(device)
            if ({known} if known else self._priced.setdefault(device, {digest})) != {digest}:
                return False
        return True

    def void_failed(self) -> int:
        """Void the rows of tasks that crashed, timed out or raised; return how many tasks are tried again."""
        num_tasks, voids = 0, self.voids()
        for place, record in list(self.records()):
            later = voids_of(record, place=place, voids=voids)
            for cells, ranges in self._failed_cells(record, later).items() if record.failed_tasks else ():
                num_tasks += num_in(ranges)
                self.coverage.mark(record.domain, ranges, cells, done=False)
                self._manifest.pending.append({"void": {"domain": record.domain, "ranges": ranges, "cells": cells}})
        self.commit()
        return num_tasks

    def _failed_cells(self, record: ShardRecord, voids: tuple[Void, ...]) -> dict[Cells, Ranges]:
        """Return the failed tasks of a shard that still count, by the cells that failed."""
        columns = ["task_index", "method", "device", "status"]
        rows = read_rows(self.storage.read(record.rows_file), columns=columns)
        rows = rows.filter(pc.is_in(rows["status"], value_set=pa.array(RETRIED, pa.string())))
        failed: dict[int, dict[str, list[str]]] = {}
        for row in rows.filter(pa.array(~void_rows(rows, voids))).to_pylist():
            failed.setdefault(row["task_index"], {}).setdefault(row["method"], []).append(row["device"])
        by_cells: dict[Cells, list[int]] = {}
        for index, methods in sorted(failed.items()):
            by_cells.setdefault(tuple((m, tuple(d)) for m, d in methods.items()), []).append(index)
        return {cells: ranges_of(np.array(tasks, dtype=np.int64)) for cells, tasks in by_cells.items()}

    def add(self, record: ShardRecord) -> bool:
        """Enter a shard, to count from the next commit on; false when any of its cells is done already."""
        if self.coverage.touches(record.domain, record.ranges, record.cells):
            return False
        self.coverage.mark(record.domain, record.ranges, record.cells)
        self._manifest.pending.append({"add": record.document()})
        return True

    @property
    def num_pending(self) -> int:
        """Shards entered and not committed."""
        return len(self._manifest.pending)

    def commit(self) -> None:
        """Write the entered shards into the manifest; they count when this returns."""
        self._manifest.commit()

    def fold(self) -> None:
        """Fold the journal into the manifest's snapshot."""
        self.commit()
        self._manifest.fold()

    def _say(self, *events: dict[str, object]) -> None:
        self._manifest.pending += events
        self.commit()

    def sources(self, chunk: Chunk) -> tuple[tuple[str, str], ...]:
        """Return the shards that were there when the run was opened and may hold rows of the chunk's tasks."""
        return self._sources.overlapping(chunk)

    def records(self) -> Iterator[tuple[int, ShardRecord]]:
        """Yield every shard that counts, with its place in the log."""
        return self._manifest.records()

    def voids(self) -> list[Void]:
        """Return what has been voided: place in the log (rows of earlier shards are meant), and which cells."""
        said = [(place, event["void"]) for place, event in self._manifest.events() if "void" in event]
        return said + self._superseded

    def remove_strays(self) -> None:
        """Remove the files of shards that do not count: of late attempts, damaged or of another run.

        Only what was there before the manifest proved to be this driver's still: a successor's shards are not.
        """
        lying = [path for folder in SHARD_FOLDERS for path in self.storage.names(folder)]
        self._manifest.confirm()
        named = {path for _, record in self.records() for path in record.files}
        for path in lying:
            if path not in named:
                self.guard()
                self.storage.remove(path)
        if isinstance(self.storage, LocalStorage):  # what a killed worker was writing; no store lists it
            for folder in SHARD_FOLDERS:
                for file in Path(self.storage.location, folder).glob(".*.tmp"):
                    file.unlink(missing_ok=True)


class Sources(NamedTuple):
    """Where finished rows lie: by domain the first and last task index of each shard, and its files."""

    by_domain: dict[str, tuple[NDArray[np.int64], list[tuple[str, str]]]]

    @staticmethod
    def of(records: Iterable[ShardRecord]) -> Sources:
        """Return the sources that ``records`` are."""
        found: dict[str, tuple[list[tuple[int, int]], list[tuple[str, str]]]] = {}
        for record in records:
            spans, files = found.setdefault(record.domain, ([], []))
            spans.append((record.ranges[0][0], record.ranges[-1][1]))
            files.append((record.rows_file, record.fisher_file))
        return Sources({name: (np.array(spans, dtype=np.int64), files) for name, (spans, files) in found.items()})

    def overlapping(self, chunk: Chunk) -> tuple[tuple[str, str], ...]:
        """Return (rows file, Fisher file) of the shards whose tasks may be the chunk's."""
        if chunk.domain not in self.by_domain:
            return ()
        spans, files = self.by_domain[chunk.domain]
        starts, stops = np.array(chunk.ranges, dtype=np.int64).T
        first = np.searchsorted(stops, spans[:, 0], side="right")  # the first range that ends behind the shard's start
        hits = (first < len(starts)) & (starts[np.minimum(first, len(starts) - 1)] < spans[:, 1])
        return tuple(files[place] for place in np.flatnonzero(hits))


def _ranges(raw: object) -> Ranges:
    return tuple((int(start), int(stop)) for start, stop in raw)  # type: ignore[attr-defined]
