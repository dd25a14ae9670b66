"""What runs in a worker: one chunk of tasks -> four shard files; only a small record travels back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tinytrain_dist.adaptation.methods import METHODS
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.folded import FoldedNetwork
from tinytrain_dist.backbones.network import build_backbone
from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.graphs.update_plan import plan_to_json
from tinytrain_dist.simulation.request import Chunk, ShardRecord, UnitSetup
from tinytrain_dist.simulation.rows import Row, RowMaker
from tinytrain_dist.simulation.schema import result_schema
from tinytrain_dist.simulation.unit import Unit, UnitResult

FISHER_SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("checkpoint", pa.string()),
        ("layer", pa.int32()),
        ("potential", pa.float64()),
        ("delta", pa.list_(pa.float64())),
    ]
)
PLAN_SCHEMA = pa.schema([("plan_hash", pa.string()), ("plan", pa.string())])
CURVE_SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("checkpoint", pa.string()),
        ("method", pa.string()),
        ("variant", pa.string()),
        ("plan_hash", pa.string()),
        ("iteration", pa.int32()),
        ("accuracy", pa.float64()),
        ("loss", pa.float64()),
    ]
)
SHARD_FOLDERS = ("shards", "plans", "fisher", "curves")

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


def run_chunk(flat: NDArray[np.float32], setup: UnitSetup, chunk: Chunk) -> ShardRecord | StorageError:
    """Compute every unit of ``chunk``, write its shard files, return what the manifest needs to know.

    An error of the storage is returned, not raised: it must end the run, not become a task's row.

    Parameters
    ----------
    flat
        All weights of the checkpoint as one array.
    """
    network = network_of(setup, flat)
    results = []
    for spec in chunk.tasks:
        unit = Unit(spec, network=network, setup=setup, attempt=chunk.attempt)
        results.append(unit.run(chunk.cells))
    try:
        return write_shard(chunk, results, setup=setup)
    except StorageError as error:
        return error


def crashed_result(setup: UnitSetup, chunk: Chunk, *, status: str, message: str) -> UnitResult:
    """Return the rows of a single task that could not be computed: ``crashed`` or ``timeout``."""
    graph = layer_graph(setup.backbone, setup.resolution)
    rows: list[Row] = []
    for spec in chunk.tasks:
        for name, devices in chunk.cells:
            maker = RowMaker(spec, method=METHODS[name], setup=setup, graph=graph, attempt=chunk.attempt)
            rows.extend(maker.failed(device, status=status, error=message) for device in devices)
    return UnitResult(rows=rows)


def write_shard(chunk: Chunk, results: list[UnitResult], *, setup: UnitSetup) -> ShardRecord:
    """Write rows, plans and Fisher information of a chunk, each file at once or not at all.

    A file's name holds its content hash: a late second attempt never replaces what the manifest names.
    """
    rows = [row for result in results for row in result.rows]
    tables = (
        pa.Table.from_pylist(rows, schema=result_schema()),
        pa.Table.from_pylist(_plan_rows(results), schema=PLAN_SCHEMA),
        pa.Table.from_pylist(_fisher_rows(chunk, results, setup), schema=FISHER_SCHEMA),
        pa.Table.from_pylist(_curve_rows(chunk, results, setup), schema=CURVE_SCHEMA),
    )
    files = {}
    for folder, table in zip(SHARD_FOLDERS, tables, strict=True):
        data = parquet_bytes(table)
        digest = bytes_hash(data)
        path = f"{folder}/{chunk.name}-{digest[:8]}.parquet"
        atomic_write(Path(setup.run_folder) / path, data)
        files[path] = digest
    failed = {row["task_id"] for row in rows if row["status"] != "ok"}
    return ShardRecord(
        name=chunk.name,
        rows=len(rows),
        failed_tasks=len(failed),
        tasks=tuple(spec.task_id for spec in chunk.tasks),
        cells=chunk.cells,
        profiles={d: setup.profile(d).hash for _, devices in chunk.cells for d in devices},
        files=files,
    )


def parquet_bytes(table: pa.Table) -> bytes:
    """Return the table as one Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _plan_rows(results: list[UnitResult]) -> list[Row]:
    plans = {key: plan for result in results for key, plan in result.plans.items()}
    return [{"plan_hash": key, "plan": plan_to_json(plan)} for key, plan in sorted(plans.items())]


def _fisher_rows(chunk: Chunk, results: list[UnitResult], setup: UnitSetup) -> list[Row]:
    return [
        {
            "task_id": spec.task_id,
            "checkpoint": setup.checkpoint,
            "layer": layer,
            "potential": result.fisher.potential(layer),
            "delta": result.fisher.channels[layer].tolist(),
        }
        for spec, result in zip(chunk.tasks, results, strict=False)
        if result.fisher is not None
        for layer in result.fisher.layers
    ]


def _curve_rows(chunk: Chunk, results: list[UnitResult], setup: UnitSetup) -> list[Row]:
    """Return query accuracy and training loss along the iterations, where curves were asked for."""
    return [
        {
            "task_id": spec.task_id,
            "checkpoint": setup.checkpoint,
            "method": method,
            "variant": variant,
            "plan_hash": plan_hash,
            "iteration": point.iteration,
            "accuracy": point.accuracy,
            "loss": outcome.losses[point.iteration - 1],
        }
        for spec, result in zip(chunk.tasks, results, strict=False)
        for (variant, method, plan_hash), outcome in sorted(result.curves.items(), key=lambda item: item[0])
        for point in outcome.curve
    ]
