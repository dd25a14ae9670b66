"""A finished run: its tables as they were written, and how to know that they still are what they were."""

from __future__ import annotations

import json
from dataclasses import asdict

from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.simulation.compaction import Totals, compact
from tinytrain_dist.simulation.store import RunStore

SUCCESS = "_SUCCESS"
"""Written last: the totals, and the generation of the manifest they are for."""


def write_tables(store: RunStore) -> Totals:
    """Write every table of the run from its shards, and tidy up what no manifest names."""
    store.fold()
    totals = compact(store)
    store.remove_strays()
    return totals


def success_document(totals: Totals, *, generation: int) -> bytes:
    """Return what ``_SUCCESS`` holds."""
    return json.dumps({"generation": generation, **asdict(totals)}, indent=1).encode()


def read_totals(storage: Storage, generation: int) -> Totals | None:
    """Return the totals of a finished run; ``None`` where it is not finished, or a table is not what was written."""
    data = storage.read_if_there(SUCCESS)
    try:
        document = json.loads(data or b"{}")
        if document.pop("generation") != generation:
            return None
        totals = Totals(**document)
    except (KeyError, TypeError, ValueError):
        return None
    return totals if all(_is_whole(storage, *item) for item in totals.files.items()) else None


def _is_whole(storage: Storage, path: str, digest: str) -> bool:
    data = storage.read_if_there(path)
    return data is not None and bytes_hash(data) == digest
