"""What runs in a worker: one chunk of tasks -> the files of a shard; only a small report travels back."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Generator

import numpy as np
import torch
from numpy.typing import NDArray

from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.backbones.torch_device import torch_device
from tinytrain_dist.data.domain import open_domain
from tinytrain_dist.execution.needs import DeviceName
from tinytrain_dist.foundation.errors import ConfigError, DataError, StorageError, TinyTrainError
from tinytrain_dist.foundation.storage import open_storage
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.simulation.dispatch import ChunkReport, Tick
from tinytrain_dist.simulation.request import Chunk, ShardRecord, UnitSetup
from tinytrain_dist.simulation.reuse import read_stored
from tinytrain_dist.simulation.rows import Row, RowMaker
from tinytrain_dist.simulation.shard_files import write_shard
from tinytrain_dist.simulation.unit import MachineError, StoredTask, Unit, UnitResult
from tinytrain_dist.simulation.unit_group import run_together

TICK_S = 1.0
"""A first attempt says where it is about once a second; later ones, which look for a culprit, at every task."""
_networks: dict[tuple[str, str, int, str], FoldedNetwork] = {}


def network_of(setup: UnitSetup, flat: NDArray[np.float32]) -> FoldedNetwork:
    """Return the folded network of the setup's checkpoint on its device; built once per process."""
    device = setup.finetune.device
    key = (setup.checkpoint, setup.backbone, setup.resolution, device)
    if key not in _networks:
        backbone = build_backbone(setup.backbone, resolution=setup.resolution)
        flat_to_state(backbone, flat)
        _networks.clear()
        _networks[key] = FoldedNetwork(backbone.to(_device(device)))
    return _networks[key]


def _device(name: DeviceName) -> torch.device:
    """Return the device; raises ``MachineError`` where this machine has none such: it computes nothing then."""
    try:
        return torch_device(name, key="finetune.device")
    except ConfigError as error:
        raise MachineError(f"{socket.gethostname()}: {error}") from error


def run_chunk(
    flat: NDArray[np.float32], setup: UnitSetup, chunk: Chunk
) -> Generator[Tick, None, ChunkReport | TinyTrainError]:
    """Compute every unit of ``chunk``, write its shard files, return what the manifest needs to know.

    Yields signs of life on the way. Trouble of this machine (storage, data that is not there or another) is
    returned, not raised: it is tried elsewhere or ends the run, and never becomes a task's row.

    Parameters
    ----------
    flat
        All weights of the checkpoint as one array.
    """
    try:
        storage = open_storage(setup.run_folder)
        _check_domain(setup, chunk.domain)
        stored = read_stored(storage, chunk, setup=setup)
        results, seconds = yield from _computed(network_of(setup, flat), setup, chunk, stored)
        alone = next((result.tuned_alone for result in results if result.tuned_alone), "")
        return ChunkReport(write_shard(storage, chunk, results, setup=setup), seconds, _computed_on(setup), alone)
    except (StorageError, DataError, MachineError) as error:
        return error


def kind_of_machine() -> str:
    """Return what the last digits of a number depend on: PyTorch's version, and which kernels it takes on this CPU."""
    return f"torch {torch.__version__}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _computed_on(setup: UnitSetup) -> str:
    """Return the kind of this machine, and of its GPU where that is what computes."""
    if setup.finetune.device == "cpu":
        return kind_of_machine()
    return f"{kind_of_machine()}, {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def _check_domain(setup: UnitSetup, name: str) -> None:
    """Raise ``DataError`` where this machine's copy of a domain is missing or another: the driver's is neither."""
    found, wanted = open_domain(name, roots=setup.data_roots).content_hash, dict(setup.domain_hashes)[name]
    if found != wanted:
        raise DataError(f"domain {name!r} on {socket.gethostname()}: content {found}; the run is of {wanted}")


def _computed(
    network: FoldedNetwork, setup: UnitSetup, chunk: Chunk, stored: dict[int, StoredTask]
) -> Generator[Tick, None, tuple[list[UnitResult], float]]:
    """Return the chunk's results and the seconds they took."""
    results: list[UnitResult] = []
    start, told = time.monotonic(), float("-inf")
    indices = list(chunk.indices())
    together = setup.finetune.num_together if chunk.attempt == 1 else 1  # one by one where a culprit is looked for
    for place in range(0, len(indices), together):
        if chunk.attempt > 1 or time.monotonic() - told >= TICK_S:
            yield Tick(place, every=chunk.attempt > 1)
            told = time.monotonic()
        units = [
            Unit(
                setup.spec(chunk.domain, index),
                network=network,
                setup=setup,
                attempt=chunk.attempt,
                stored=stored[index],
            )
            for index in indices[place : place + together]
        ]
        results += run_together(units, chunk.cells, together=together)
    return results, time.monotonic() - start


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
