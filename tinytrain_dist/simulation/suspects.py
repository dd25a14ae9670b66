"""Tasks that end the very process that computes them: with the serial executor that is the driver itself.

Before each chunk the driver leaves word of it in ``attempt.json``, which a run that ends in any other way removes. Who
finds it starts with the tasks it names, one by one and counted, so that the one to blame becomes a row in the end and
does not kill every start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from typing import Any

from tinytrain_dist.foundation.errors import TinyTrainError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.simulation.dispatch import ChunkReport, Tick, named
from tinytrain_dist.simulation.plan_run import RunPlan
from tinytrain_dist.simulation.ranges import Ranges, indices_of
from tinytrain_dist.simulation.request import Chunk
from tinytrain_dist.simulation.run_log import Say
from tinytrain_dist.simulation.store import RunStore
from tinytrain_dist.simulation.worker import failed_shard

ATTEMPT = "attempt.json"
RunChunk = Callable[..., Generator[Tick, None, ChunkReport | TinyTrainError]]
_log = logger(__name__)


class Suspects:
    """What an earlier process was at when it died, and how often each task was computed alone by one that did."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._domain = ""
        self._ranges: Ranges = ()
        self._deaths: dict[str, int] = {}
        data = storage.read_if_there(ATTEMPT)
        try:
            found = json.loads(data or b"{}")
            self._domain, self._ranges = str(found["domain"]), tuple((int(a), int(b)) for a, b in found["ranges"])
            self._deaths = {str(key): int(count) for key, count in found["deaths"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return
        if len(tasks := list(indices_of(self._ranges))) == 1:
            key = f"{self._domain}/{tasks[0]}"
            self._deaths[key] = self._deaths.get(key, 0) + 1

    def noted(self, run_chunk: RunChunk, *args: Any) -> Generator[Tick, None, ChunkReport | TinyTrainError]:
        """Run a chunk (the last of ``args``) and say so before."""
        chunk: Chunk = args[-1]
        note = {"domain": chunk.domain, "ranges": chunk.ranges, "deaths": self._deaths}
        self._storage.write(ATTEMPT, json.dumps(note).encode())
        return (yield from run_chunk(*args))

    def settle(self, plan: RunPlan, store: RunStore, run_chunk: RunChunk, *, say: Say) -> None:
        """Compute alone the tasks an earlier process was at when it died; raises what a machine is to blame for."""
        for chunk in list(self._missing(plan, store)):
            deaths = self._deaths.get(f"{chunk.domain}/{chunk.ranges[0][0]}", 0)
            if deaths >= plan.settings.dispatch.max_attempts:
                message = f"{deaths} processes that computed this task alone died"
                _log.warning("%s, task %d: %s", chunk.domain, chunk.ranges[0][0], message)
                say("quarantined", status="crashed", message=message, **named(chunk))
                store.add(failed_shard(plan.setup, chunk, status="crashed", message=message))
            else:
                found = _finished(self.noted(run_chunk, plan.weights, plan.setup, chunk))
                store.add(found.record)
            store.commit()

    def clear(self) -> None:
        """Take back what was said: the process ends, or goes on, by itself."""
        self._storage.remove(ATTEMPT)

    def _missing(self, plan: RunPlan, store: RunStore) -> Iterator[Chunk]:
        wanted = set(indices_of(self._ranges))
        for piece in plan.grid.pieces(store.coverage):
            for index in indices_of(piece.ranges) if piece.group[0] == self._domain else ():
                if index in wanted:
                    cells, alone = piece.group[1], ((index, index + 1),)
                    yield Chunk(domain=self._domain, ranges=alone, cells=cells, attempt=2)


def _finished(running: Generator[Tick, None, ChunkReport | TinyTrainError]) -> ChunkReport:
    while True:
        try:
            next(running)
        except StopIteration as end:
            if isinstance(end.value, TinyTrainError):
                raise end.value from None
            assert isinstance(end.value, ChunkReport)
            return end.value
