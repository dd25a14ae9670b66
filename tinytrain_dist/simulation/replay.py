"""Replay: stored rows computed again, alone, in this process, and compared with what is stored.

Everything comes from the run's own record: the settings from its identity, the weights by their content hash.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from tinytrain_dist.adaptation.numerics import check_machine
from tinytrain_dist.adaptation.settings import FineTuneSettings, SelectionSettings
from tinytrain_dist.data.episodes import EpisodeSettings, EpisodeSpec
from tinytrain_dist.execution.threads import use_one_thread
from tinytrain_dist.foundation.errors import (
    DataError,
    ProfileError,
    RunLockedError,
    StorageError,
)
from tinytrain_dist.simulation.plan_run import RunPlan, plan_run
from tinytrain_dist.simulation.recorded_weights import RecordedWeights
from tinytrain_dist.simulation.request import Cells
from tinytrain_dist.simulation.rows import Row
from tinytrain_dist.simulation.run_document import differing_keys
from tinytrain_dist.simulation.schema import HOST_COLUMNS, result_schema
from tinytrain_dist.simulation.settings import SimulationSettings
from tinytrain_dist.simulation.unit import Unit
from tinytrain_dist.simulation.worker import network_of

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One column in which the stored row and the replayed one are not equal."""

    column: str
    stored: Any
    replayed: Any


@dataclass(frozen=True, kw_only=True)
class ReplayedRow:
    """What came out for one stored row; equal where there is no difference."""

    method: str
    variant: str
    device: str
    status: str
    columns: int
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether every compared column is equal, bit for bit."""
        return not self.differences


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where to look for what the run was made from; each by default where the run's record says.

    Attributes
    ----------
    weights
        Checkpoint file to use; its content hash must be the recorded one.
    search
        Run root that is searched for a checkpoint of the recorded content hash when the recorded file has moved.
    data_roots, device_dirs
        Folders with own domains and device profiles.
    """

    weights: Path | None = None
    search: Path | None = None
    data_roots: tuple[str, ...] | None = None
    device_dirs: tuple[str, ...] | None = None


def replay(record: Mapping[str, Any], stored: Sequence[Row], *, places: Places) -> list[ReplayedRow]:
    """Compute the ``stored`` rows of one task again and compare them column by column, host columns left out.

    Parameters
    ----------
    record
        The run's ``run.json``.
    stored
        Result rows of one task, at least one.

    Raises
    ------
    CheckpointError, DataError, ProfileError
        Weights, domain or device profile have moved or changed since the run.
    RunLockedError
        This program would not compute the run's identity (another result version, say): nothing can be compared.
    StorageError
        The record or the rows are not what a run of this program holds.
    """
    assert stored and len({row["task_id"] for row in stored}) == 1
    plan = plan_run(_settings(record, stored, places=places))
    _check_same_run(record, plan)
    return [_compared(row, fresh) for row, fresh in zip(stored, _computed(plan, stored), strict=True)]


def _settings(record: Mapping[str, Any], stored: Sequence[Row], *, places: Places) -> SimulationSettings:
    identity, first = _section(record, "identity"), stored[0]
    config = record.get("config") or {}
    roots, dirs = places.data_roots, places.device_dirs
    try:
        return SimulationSettings(
            domains=(first["domain"],),
            split=identity["split"],
            num_tasks=int(first["task_index"]) + 1,
            episodes=_read(EpisodeSettings, identity["episodes"]),
            seed=identity["seed"],
            resolution=identity["resolution"],
            backbone=identity["backbone"],
            weights=_weights(identity, config, first["initialization"], places=places),
            methods=_unique(row["method"] for row in stored),
            devices=_unique(row["device"] for row in stored),
            data_roots=_recorded(config, "data", "roots") if roots is None else roots,
            device_dirs=_recorded(config, "devices", "dirs") if dirs is None else dirs,
            finetune=_read(FineTuneSettings, identity["finetune"] | {"numerics": identity["numerics"]}),
            selection=_read(SelectionSettings, identity["selection"]),
        )
    except (KeyError, TypeError) as error:
        raise StorageError(
            f"run.json: identity: no identity of this program: {type(error).__name__} {error}"
        ) from error


def _weights(
    identity: Mapping[str, Any], config: Mapping[str, Any], initialization: str, *, places: Places
) -> Path | None:
    recorded = RecordedWeights(
        hash=identity["checkpoint"],
        backbone=identity["backbone"],
        word=(config.get("backbone") or {}).get("weights"),
        initialization=initialization,
    )
    return recorded.find(given=places.weights, search=places.search)


def _read(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return settings from their JSON form (lists for tuples); a key this program does not know is refused."""
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise RunLockedError(f"run.json: identity: {kind.__name__} does not know {', '.join(unknown)}; update it")
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise StorageError(f"run.json: identity: {' '.join(str(error).split())}") from error


def _check_same_run(record: Mapping[str, Any], plan: RunPlan) -> None:
    """Raise unless ``plan`` asks for what the run computed: its domain, its profiles, its identity."""
    identity = _section(record, "identity")
    for name, ours in plan.identity["domain_hashes"].items():
        theirs = identity.get("domain_hashes", {}).get(name)
        if theirs != ours:
            raise DataError(f"domain {name!r} has changed: its content is {ours}, the run was made with {theirs}")
    for name, ours in plan.profile_hashes.items():
        theirs = _section(record, "grid").get("devices", {}).get(name)
        if theirs != ours:
            raise ProfileError(f"profile {name!r} has changed: its content is {ours}, the run was priced with {theirs}")
    differing = differing_keys(identity, plan.identity)
    if differing:
        raise RunLockedError(f"this program does not compute this run's numbers ({differing}); use the one that did")


def _computed(plan: RunPlan, stored: Sequence[Row]) -> list[Row]:
    """Return the replayed row of each stored one, as the store would hold it."""
    use_one_thread()
    check_machine(plan.settings.finetune)
    first, settings = stored[0], plan.settings
    spec = EpisodeSpec.of(
        plan.domains[0], split=settings.split, settings=settings.episodes, seed=settings.seed, index=first["task_index"]
    )
    if spec.task_id != first["task_id"]:
        raise StorageError(f"row of task {first['task_id']!r}: its domain and index say {spec.task_id!r}: damaged")
    cells: Cells = tuple(
        (method, tuple(row["device"] for row in stored if row["method"] == method)) for method in settings.methods
    )
    unit = Unit(spec, network=network_of(plan.setup, plan.weights), setup=plan.setup, attempt=1)
    rows = pa.Table.from_pylist(unit.run(cells).rows, schema=result_schema()).to_pylist()
    by_cell = {(row["method"], row["device"]): row for row in rows}
    return [by_cell[row["method"], row["device"]] for row in stored]


def _compared(stored: Row, fresh: Row) -> ReplayedRow:
    names = [name for name in stored.keys() | fresh.keys() if name not in HOST_COLUMNS]
    differing = sorted(name for name in names if not _same(stored.get(name), fresh.get(name)))
    return ReplayedRow(
        method=stored["method"],
        variant=stored["variant"],
        device=stored["device"],
        status=stored["status"],
        columns=len(names),
        differences=tuple(Difference(column=n, stored=stored.get(n), replayed=fresh.get(n)) for n in differing),
    )


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # NaN equals NaN here


def _section(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = record.get(key)
    if not isinstance(found, Mapping):
        raise StorageError(f"run.json: {key}: missing; a run of 'simulate' is needed")
    return found


def _recorded(config: Mapping[str, Any], section: str, key: str) -> tuple[str, ...]:
    return tuple((config.get(section) or {}).get(key) or ())


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
