"""What runs in a worker: one chunk of tasks -> the files of a shard; only a small report travels back."""

from __future__ import annotations

import time
from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.simulation.dispatch import ChunkReport, Tick
from tinytrain_dist.simulation.request import Chunk, ShardRecord, UnitSetup
from tinytrain_dist.simulation.reuse import read_stored
from tinytrain_dist.simulation.rows import Row, RowMaker
from tinytrain_dist.simulation.shard_files import write_shard
from tinytrain_dist.simulation.unit import Unit, UnitResult

TICK_S = 1.0
"""A first attempt says where it is about once a second; later ones, which look for a culprit, at every task."""
_networks: dict[tuple[str, str, int], FoldedNetwork] = {}


def network_of(setup: UnitSetup, flat: NDArray[np.float32]) -> FoldedNetwork:
    """Return the folded network of the setup's checkpoint; built once per process."""
    key = (setup.checkpoint, setup.backbone, setup.resolution)
    if key not in _networks:
        backbone = build_backbone(setup.backbone, resolution=setup.resolution)
        flat_to_state(backbone, flat)
        _networks.clear()
        _networks[key] = FoldedNetwork(backbone)
    return _networks[key]


def run_chunk(
    flat: NDArray[np.float32], setup: UnitSetup, chunk: Chunk
) -> Generator[Tick, None, ChunkReport | StorageError]:
    """Compute every unit of ``chunk``, write its shard files, return what the manifest needs to know.

    Yields signs of life on the way. An error of the storage is returned, not raised: it must end the run, not
    become a task's row.

    Parameters
    ----------
    flat
        All weights of the checkpoint as one array.
    """
    network = network_of(setup, flat)
    try:
        storage = open_storage(setup.run_folder)
        stored = read_stored(storage, chunk, setup=setup)
    except StorageError as error:
        return error
    results: list[UnitResult] = []
    start, told = time.monotonic(), float("-inf")
    for place, index in enumerate(chunk.indices()):
        if chunk.attempt > 1 or time.monotonic() - told >= TICK_S:
            yield Tick(place, every=chunk.attempt > 1)
            told = time.monotonic()
        unit = Unit(
            setup.spec(chunk.domain, index), network=network, setup=setup, attempt=chunk.attempt, stored=stored[index]
        )
        results.append(unit.run(chunk.cells))
    seconds = time.monotonic() - start
    try:
        return ChunkReport(write_shard(storage, chunk, results, setup=setup), seconds)
    except StorageError as error:
        return error


def failed_shard(setup: UnitSetup, chunk: Chunk, *, status: str, message: str) -> ShardRecord:
    """Write the rows of tasks that could not be computed (``crashed`` or ``timeout``); return the shard's record."""
    results = [failed_result(setup, chunk, index, status=status, message=message) for index in chunk.indices()]
    return write_shard(open_storage(setup.run_folder), chunk, results, setup=setup)


def failed_result(setup: UnitSetup, chunk: Chunk, index: int, *, status: str, message: str) -> UnitResult:
    """Return the rows of one task that could not be computed."""
    spec, graph = setup.spec(chunk.domain, index), layer_graph(setup.backbone, setup.resolution)
    rows: list[Row] = []
    for name, devices in chunk.cells:
        maker = RowMaker(spec, method=METHODS[name], setup=setup, graph=graph, attempt=chunk.attempt)
        rows.extend(maker.failed(device, status=status, error=message) for device in devices)
    return UnitResult(rows=rows)
