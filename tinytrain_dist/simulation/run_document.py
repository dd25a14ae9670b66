"""``run.json``: what was asked, what decides the numbers, what made them; and the check that both agree."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from tinytrain_dist import __version__
from tinytrain_dist.foundation.errors import RunLockedError
from tinytrain_dist.foundation.storage import Storage
from tinytrain_dist.simulation.manifest import read_json
from tinytrain_dist.simulation.plan_run import RunPlan

DOCUMENT = "run.json"
KIND = "simulate"
COMPUTED_ON = "computed_on"
"""Key under which a run lists the kinds of machines its rows were computed on."""
RATE_SEARCH = "learning_rate_search"
"""Key under which a run says how ``finetune.learning_rate: auto`` was decided."""
_PACKAGES = ("torch", "ray", "pyarrow", "numpy", "duckdb")


def write_run_document(
    storage: Storage, plan: RunPlan, config: Mapping[str, Any], *, status: str, **extra: Any
) -> None:
    """Write ``run.json``; ``extra`` holds exit code and result hash of a finished run.

    Domains and grid are those of every command so far: the rows of earlier ones are still there.
    """
    earlier = read_run_document(storage) or {}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    hashes = earlier.get("identity", {}).get("domain_hashes", {}) | plan.identity["domain_hashes"]
    document = {
        "run_id": name_of(storage),
        "kind": KIND,
        "status": status,
        "created": earlier.get("created", now),
        "updated": max(now, earlier.get("updated", now)),  # a clock may jump back
        "command": config.get("command", ""),
        "config": {key: value for key, value in config.items() if key not in ("command", RATE_SEARCH)},
        "identity": plan.identity | {"domain_hashes": hashes},
        "grid": grid_of(plan, earlier=earlier.get("grid", {})),
        "versions": versions(),
        **({RATE_SEARCH: config[RATE_SEARCH]} if RATE_SEARCH in config else {}),
        **extra,
    }
    storage.write(DOCUMENT, json.dumps(document, indent=1).encode())


def read_run_document(storage: Storage) -> dict[str, Any] | None:
    """Return ``run.json``, ``None`` where there is no run; raises ``StorageError`` where it is damaged."""
    data = storage.read_if_there(DOCUMENT)
    return None if data is None else read_json(data, where=f"{storage.location}/{DOCUMENT}")


def name_of(storage: Storage) -> str:
    """Return the name of a run directory: its run id."""
    return storage.location.rstrip("/").rpartition("/")[2]


def grid_of(plan: RunPlan, *, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return the grid keys, ``earlier`` ones included: they may grow without changing any number that is there."""
    return {
        "num_tasks": max(plan.settings.num_tasks, earlier.get("num_tasks", 0)),
        "domains": _joined(earlier.get("domains", ()), (domain.name for domain in plan.domains)),
        "methods": _joined(earlier.get("methods", ()), plan.settings.methods),
        "devices": earlier.get("devices", {}) | plan.profile_hashes,
    }


def _joined(earlier: Iterable[str], names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*earlier, *names]))


def versions() -> dict[str, str]:
    """Return the versions that decide or explain results."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    return {"tinytrain_dist": __version__, "python": platform.python_version(), "machine": platform.machine()} | found


def check_identity(storage: Storage, identity: Mapping[str, Any]) -> None:
    """Refuse a run directory whose identity differs, listing the keys that do.

    Domains are grid keys, their content is not: a domain both runs name must hold the same images.
    """
    document = read_run_document(storage)
    if document is None:
        return
    folder = storage.location
    if document.get("kind") != KIND:
        raise RunLockedError(f"{folder}: holds a run of kind {document.get('kind')!r}; set another run.id")
    if differing := differing_keys(document.get("identity", {}), identity):
        raise RunLockedError(
            f"{folder}: holds a run of another identity ({differing}); set run.force_new=true or another run.id"
        )


def differing_keys(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Return in words which identity keys differ (empty: none); a domain only one of them names does not count."""
    before, now = _flat(there), _flat(asked)
    keys = {key for key in {*before, *now} if not key.startswith("domain_hashes.") or (key in before and key in now)}
    differing = sorted(key for key in keys if before.get(key) != now.get(key))
    return ", ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} asked" for key in differing)


def free_place(root: Storage, name: str) -> Storage:
    """Return the place ``name`` in ``root``, or the first of ``name-2``, ``name-3``, ... that holds no run."""
    number, place = 1, root.below(name)
    while place.read_if_there(DOCUMENT) is not None:
        number += 1
        place = root.below(f"{name}-{number}")
    return place


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat
