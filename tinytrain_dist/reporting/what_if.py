"""What if: the run's tasks on other devices, with other RAM or in another power mode, priced without any training.

The answer is a run like any other (same columns), so that every table, front and fleet can be made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from tinytrain_dist.costs.profile_files import load_profile, load_profiles
from tinytrain_dist.costs.profiles import DeviceProfile
from tinytrain_dist.foundation.errors import ConfigError, ProfileError
from tinytrain_dist.reporting import views
from tinytrain_dist.reporting.repricing import PRICE_COLUMNS, SAME, Pricer
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.what_if_cells import Cells, StoredCells, Target
from tinytrain_dist.simulation.schema import COLUMNS

_INT_COLUMNS = frozenset(column.name for column in COLUMNS if column.type == pa.int64())


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """The run as it would be on the targets, without the cells that need tuning.

    ``needs_tuning``: (device, method, variant) -> tasks left out; ``untold``: those of them whose plan stored data
    cannot tell. ``num_cells``: cells answered.
    """

    run: RunResults
    targets: list[Target]
    num_cells: int
    needs_tuning: dict[tuple[str, str, str], int]
    untold: int
    notes: list[str]


def run_profiles(run: RunResults) -> tuple[list[DeviceProfile], list[str]]:
    """Return the profiles of the run's devices as they are today, and notes on those that changed or are gone."""
    hashes = (run.record.get("grid") or {}).get("devices") or {}
    names = [row["device"] for row in run.select("SELECT DISTINCT device FROM stored ORDER BY device")]
    profiles, gone, changed = [], [], []
    for name in names:
        try:
            profile = load_profile(name, profile_dirs(run))
        except ProfileError:
            gone.append(name)
            continue
        if hashes.get(name, profile.hash) != profile.hash:
            changed.append(name)
        profiles.append(profile)
    notes = [f"NOTE: profiles that are not found any more: {', '.join(gone)}."] if gone else []
    notes += [f"NOTE: profiles that changed since the run and are priced as they are today: {', '.join(changed)}."
              ] if changed else []  # fmt: skip
    return profiles, notes


def profile_dirs(run: RunResults) -> list[str]:
    """Return the folders with further profiles the run was configured with."""
    devices = run.config.get("devices")
    found = devices.get("dirs") if isinstance(devices, dict) else None
    return [str(folder) for folder in found or []]


def power_mode_profiles(run: RunResults, mode: str) -> list[DeviceProfile]:
    """Return the profiles of the run's boards in power mode ``mode``; raises ``ConfigError`` where there is none."""
    ours, _ = run_profiles(run)
    boards = {_board(profile) for profile in ours}
    every = [profile for profile in load_profiles(profile_dirs(run)) if _board(profile) in boards]
    found = [profile for profile in every if profile.power_mode == mode]
    if not found:
        known = sorted({str(profile.power_mode) for profile in every if profile.power_mode is not None})
        raise ConfigError(
            f"--what-if power_mode={mode}: no profile of a board of this run is in that mode; "
            f"there are: {', '.join(known) or 'none (write one, docs/devices.md)'}"
        )
    return found


def with_ram(profile: DeviceProfile, *, ram_bytes: int) -> DeviceProfile:
    """Return the profile with another RAM."""
    return profile.model_copy(update={"ram_bytes": ram_bytes})


def what_if(run: RunResults, targets: Sequence[Target]) -> WhatIf:
    """Return the run's tasks on ``targets``.

    Raises
    ------
    ConfigError
        Stored prices are not reproduced by today's counting, or settings and plans that are needed are missing.
    """
    pricer = Pricer(run)
    stored = StoredCells(run, pricer)
    notes = _check_reproduced(run, stored, pricer)
    cells = stored.answer(list(targets))
    answered = _as_run(run, stored, pricer, cells, targets)
    if cells.untold:
        notes.append(f"NOTE: of {cells.untold} cells stored data cannot tell the plan (no Fisher information, or a "
                     "criterion that looks at weights).")  # fmt: skip
    return WhatIf(run=answered, targets=list(targets), num_cells=answered.num_rows, needs_tuning=cells.needs_tuning,
                  untold=cells.untold, notes=notes)  # fmt: skip


def _check_reproduced(run: RunResults, stored: StoredCells, pricer: Pricer) -> list[str]:
    """Price one stored row of every (method, device) again; raises ``ConfigError`` naming what is not reproduced."""
    hashes = (run.record.get("grid") or {}).get("devices") or {}
    profiles = {p.name: p for p in run_profiles(run)[0] if hashes.get(p.name, p.hash) == p.hash}
    rows = run.select(
        "SELECT method, device, any_value(row ORDER BY row) AS row, any_value(latency_ms ORDER BY row) AS latency_ms,"
        " any_value(peak_bytes ORDER BY row) AS peak_bytes FROM wi_rows"
        " WHERE status = 'ok' AND latency_ms IS NOT NULL AND batch IS NOT NULL GROUP BY ALL ORDER BY ALL"
    )
    rows = [row for row in rows if row["device"] in profiles]
    if not rows:
        return ["NOTE: no profile is as it was when the run was priced: that today's counting agrees is unchecked."]
    names = sorted({row["device"] for row in rows})
    shapes = stored.shapes_of(np.array([row["row"] for row in rows], np.int64))
    devices = np.array([names.index(row["device"]) for row in rows], np.int64)
    prices = pricer.price(stored.shapes, [profiles[name] for name in names], (shapes, devices))
    for row, latency, peak in zip(
        rows, prices["latency_ms"].to_pylist(), prices["peak_bytes"].to_pylist(), strict=True
    ):
        if abs(latency - row["latency_ms"]) > SAME * row["latency_ms"] or peak != row["peak_bytes"]:
            raise ConfigError(
                f"{run.path}: the stored price of {row['method']} on {row['device']} is not reproduced "
                f"({row['latency_ms']:.6g} ms and {row['peak_bytes']} bytes stored, {latency:.6g} ms and {peak} bytes "
                "by today's counting): the run is of another version, or the method counts by a rule of its own; "
                "run it again to ask what if"
            )
    return []


def _as_run(
    run: RunResults, stored: StoredCells, pricer: Pricer, cells: Cells, targets: Sequence[Target]
) -> RunResults:
    """Return a run whose rows are the answered cells: the stored row, the target's name, the target's prices."""
    shape, target = np.concatenate(cells.shapes), np.concatenate(cells.targets)
    priced = shape >= 0
    code = np.where(priced, shape * len(targets) + target, -1)
    distinct, back = np.unique(code[priced], return_inverse=True)
    pairs = (distinct // len(targets), distinct % len(targets))
    prices = pricer.price(stored.shapes, [t.profile for t in targets], pairs)
    number = np.full(len(code), -1, np.int64)
    number[priced] = back
    connection = run.connection
    connection.register("given_cells", pa.table({
        "row": np.concatenate(cells.rows), "target": target, "price": number,
        "nothing": np.concatenate(cells.infeasible),
    }))  # fmt: skip
    connection.register("given_targets", pa.table({
        "target": np.arange(len(targets)), "label": [t.label for t in targets],
        "price_numerics": [t.profile.price_numerics for t in targets],
    }))  # fmt: skip
    connection.register("given_prices", prices.append_column("price", pa.array(np.arange(prices.num_rows))))
    for name in ("cells", "targets", "prices"):
        connection.execute(f"CREATE TABLE {stored.schema}.wi_{name} AS FROM given_{name}")
        connection.unregister(f"given_{name}")
    own = connection.cursor()  # another session of the same database, which finds the answer under the usual names
    own.execute(f"SET schema = '{stored.schema}'")
    own.execute(_answer_sql(set(prices.column_names)))
    views.create(own)
    return replace(run, connection=own, num_rows=len(code))


def _answer_sql(priced: set[str]) -> str:
    own = {
        "device": "t.label",
        "price_numerics": "t.price_numerics",
        "plan_status": "CASE WHEN c.nothing THEN 'infeasible' ELSE r.plan_status END",
        "accuracy_after": "CASE WHEN c.nothing THEN r.accuracy_before ELSE r.accuracy_after END",
        "plan_hash": "CASE WHEN NOT c.nothing THEN r.plan_hash END",
        "iterations": "CASE WHEN c.nothing THEN 0 ELSE r.iterations END",
        "signature": "CASE WHEN c.nothing THEN 'stalled' ELSE r.signature END",
    }  # fmt: skip
    columns = []
    for column in (c.name for c in COLUMNS):
        expression = own.get(column, f"r.{column}")
        if column in PRICE_COLUMNS and column in priced and column not in own:
            cast = "::BIGINT" if column in _INT_COLUMNS else ""
            expression = f"CASE WHEN c.price < 0 THEN r.{column} ELSE p.{column}{cast} END"
        if column == "fits":
            infeasible = "c.nothing OR r.plan_status = 'infeasible'"
            expression = f"CASE WHEN c.price < 0 THEN r.fits WHEN {infeasible} THEN 'no' ELSE p.fits END"
        columns.append(f"{expression} AS {column}")
    return f"""
    CREATE VIEW stored AS SELECT {", ".join(columns)}
    FROM wi_cells c JOIN wi_rows r ON r.row = c.row JOIN wi_targets t ON t.target = c.target
    LEFT JOIN wi_prices p ON p.price = c.price
    """


def _board(profile: DeviceProfile) -> str:
    return profile.name.split("--", 1)[0]
