"""The planner: a run and questions in, one document of plain values out (the JSON of ``tinytrain plan``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tinytrain_dist.reporting import cells
from tinytrain_dist.reporting.admissible import admissible
from tinytrain_dist.reporting.comparison import ADAPTATION, ComparisonRow, comparison_table
from tinytrain_dist.reporting.fleet import fleet
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.notices import notices
from tinytrain_dist.reporting.pareto import COSTS, choices
from tinytrain_dist.reporting.questions import Questions, merged_limits, targets_of
from tinytrain_dist.reporting.runner_up import contests
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.targets import smallest_devices
from tinytrain_dist.reporting.tuning_command import tuning_commands
from tinytrain_dist.reporting.what_if import WhatIf, profile_dirs, what_if
from tinytrain_dist.reporting.within import Resource, reached_within

Document = dict[str, Any]
BASIS = ("standing", "extrapolated", "extrapolated_share", "accuracy_numerics", "price_numerics", "batch")
"""What every figure of accuracy or cost rests on: it stands beside it in every section and file."""


def answer(run: RunResults, asked: Questions) -> Document:
    """Return the answers as plain values: a section per question, and the notes that belong to them.

    Raises
    ------
    ConfigError
        A what-if that stored data cannot answer at all.
    DataError
        A mix that does not match the run.
    """
    document: Document = {"run": run.run_id, "notes": []}
    limits = asked.limits
    shown = run
    if asked.what_if is not None:
        limits = merged_limits(limits, asked.what_if.limits)
        if asked.what_if.changes_devices:
            targets, notes = targets_of(run, asked.what_if)
            found = what_if(run, targets)
            shown = found.run
            document["notes"] += [*notes, *found.notes]
            document["what_if"] = _what_if_section(run, found)
    document["limits"] = asdict(limits)
    rows = comparison_table(shown, limits=limits, interval=asked.interval)
    document["fits"] = fits_matrix(rows)
    if asked.is_overview:
        document["runner_up"] = _with_basis([asdict(contest) for contest in contests(shown, rows)], rows, "winner")
    if asked.is_overview or asked.pareto:
        fronts = _fronts(rows, asked.pareto or tuple(COSTS), by_device=bool(asked.pareto))
        document["pareto"] = _with_basis(fronts, rows, "label")
        document["notes"] += _missing_notes(rows, asked.pareto or tuple(COSTS))
    if asked.smallest:
        answers = [asdict(found) for found in smallest_devices(rows, min_accuracy=asked.min_accuracy)]
        document["smallest"] = _with_basis(answers, rows, "label")
    document |= {name: _with_basis(found, rows, *ADAPTATION) for name, found in _within(shown, asked).items()}
    if asked.mix:
        found_fleet = fleet(shown, rows, asked.mix, profile_dirs(run))
        document["fleet"] = [asdict(row) for row in found_fleet.rows]
        document["notes"] += found_fleet.notes
    document["notes"] += notices(rows)
    return document


def fits_matrix(rows: Sequence[ComparisonRow]) -> list[Document]:
    """Return one entry per device and adaptation: what fits, what decides, and by which margin."""
    labels = adaptation_labels(rows)
    names = (
        "device", *ADAPTATION, "num_tasks", "num_failed", "num_infeasible", "num_inapplicable", "inapplicable",
        "fits_share", "uncertain_share",
        "fits_ram_share",
        "fits_flash_share", "fits_time_share", "fits_energy_share", "limiting", "ram_margin_bytes",
        "flash_margin_bytes", "time_margin_ms", "energy_margin_mj", "accuracy_mean", "accuracy_low", "accuracy_high",
        "latency_p50_ms", "energy_p50_mj", "peak_p50_bytes", *BASIS,
    )  # fmt: skip
    return [
        {"label": labels[adaptation_key(row)], "cell": f"{cells.fits_cell(row)} {row.limiting or ''}".strip()}
        | {name: getattr(row, name) for name in names}
        for row in rows
        if row.device is not None
    ]


def _with_basis(entries: list[Document], rows: Sequence[ComparisonRow], *names: str) -> list[Document]:
    """Return the entries with the ``BASIS`` of the line they are about, named by its label or by its fields."""
    labels = adaptation_labels(rows)
    lines: dict[tuple[Any, ...], ComparisonRow] = {}
    for row in rows:
        own = adaptation_key(row) if len(names) > 1 else (labels[adaptation_key(row)],)
        lines[(row.device, *own)] = row
    found = []
    for entry in entries:
        line = lines.get((entry["device"], *(entry[name] for name in names)))
        found.append(entry | {name: getattr(line, name, None) for name in BASIS})
    return found


def _what_if_section(run: RunResults, found: WhatIf) -> Document:
    missing = [
        {"device": device, "method": method, "variant": variant, "tasks": num}
        for (device, method, variant), num in sorted(found.needs_tuning.items())
    ]
    named = {entry["device"] for entry in missing}
    open_targets = [target for target in found.targets if target.label in named]
    return {
        "devices": [target.label for target in found.targets],
        "num_cells": found.num_cells,
        "needs_tuning": missing,
        "commands": tuning_commands(run, open_targets) if open_targets else [],
    }


def _fronts(rows: Sequence[ComparisonRow], costs: Sequence[str], *, by_device: bool) -> list[Document]:
    """Return the fronts per cost: over all devices first (``scope`` ``all``), then device by device if asked."""
    devices = sorted({str(row.device) for row in rows if row.device is not None})
    scopes: list[str | None] = [None] if len(devices) > 1 else [*devices]
    scopes += devices if by_device and len(devices) > 1 else []
    return [
        {"scope": scope or "all", **choice.to_dict()}
        for cost in costs for scope in scopes for choice in choices(rows, cost, device=scope)
    ]  # fmt: skip


def _missing_notes(rows: Sequence[ComparisonRow], costs: Sequence[str]) -> list[str]:
    """Return a note per cost that is unknown on some device: what is on no front may still be better than what is."""
    notes = []
    for cost in costs:
        unknown = sorted({str(row.device) for row in admissible(rows)
                          if row.device is not None and getattr(row, COSTS[cost]) is None})  # fmt: skip
        if unknown:
            notes.append(f"NOTE: no {cost} is known on {', '.join(unknown)}: left out of the front against {cost}.")
    return notes


def _within(run: RunResults, asked: Questions) -> Document:
    wanted: list[tuple[str, Resource, float | None]] = [
        ("within_time", "time", asked.within_ms), ("within_energy", "energy", asked.within_mj),
    ]  # fmt: skip
    return {
        name: [asdict(reached) for reached in reached_within(run, resource=resource, limit=limit)]
        for name, resource, limit in wanted if limit is not None
    }  # fmt: skip
