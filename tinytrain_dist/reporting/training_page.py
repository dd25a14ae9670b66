"""The HTML page of a training: its curves, what it reached on held-out classes, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.foundation.redaction import redact_text
from tinytrain_dist.reporting.page import PAGE_NAME, render
from tinytrain_dist.reporting.page_data import short
from tinytrain_dist.reporting.training_run import KINDS, TrainingRun
from tinytrain_dist.reporting.training_stretches import stretch_rounds, stretches

MAX_POINTS = 1000
"""More rounds are drawn as means over equal stretches, with the smallest and largest value of each."""
_SERIES = (
    ("loss", "loss", "loss (nats)", 1.0),
    ("accuracy", "accuracy", "query accuracy of the training episodes (%)", 100.0),
    ("learning_rate", "learning rate", "learning rate (log scale)", 1.0),
)


def write_training_page(run: TrainingRun) -> Path:
    """Write ``report.html`` into the run directory and return its path; raises ``StorageError``."""
    target = run.path / PAGE_NAME
    atomic_write(target, render_training_page(run).encode())
    return target


def render_training_page(run: TrainingRun) -> str:
    """Return the page; the same run gives the same text."""
    values = {
        "title": redact_text(run.path.name),
        "kind": KINDS[run.kind],
        "stretch": stretch_rounds(run),
        "status": "finished" if run.finished else "unfinished: the same command resumes it",
        "headlines": [redact_text(text) for text in training_headlines(run)],
        "provenance": [
            (name, json.dumps(run.record[name], indent=2, ensure_ascii=False))
            for name in ("settings", "identity", "versions", "validation")
            if run.record.get(name)
        ],
    }
    return render("training.html.j2", training_document(run), values, scripts=("training.js",))


def training_headlines(run: TrainingRun) -> list[str]:
    """Return how far it is, what it reached, and how fast it was."""
    planned = run.record.get("num_rounds") or run.planned_rounds
    lines = [f"{len(run.curves)} of {planned} rounds are recorded." if planned else f"{len(run.curves)} rounds."]
    if run.curves:
        tenth = max(1, len(run.curves) // 10)
        first, last = run.curves[:tenth], run.curves[-tenth:]
        lines.append(
            f"Loss went from {_mean(first, 'loss'):.3f} to {_mean(last, 'loss'):.3f}, accuracy on training episodes "
            f"from {100 * _mean(first, 'accuracy'):.1f} to {100 * _mean(last, 'accuracy'):.1f} % "
            "(means of the first and last tenth of the rounds)."
        )
    for name, score in sorted(run.validation.items()):
        lines.append(
            f"Held-out classes of {name}: {100 * score['accuracy']:.1f} ± {100 * score['half_width']:.1f} % "
            f"over {score['num_episodes']} episodes (95 % interval)."
        )
    if run.speed:
        lines.append(f"Median speed: {float(np.median(list(run.speed.values()))):.3g} {run.slots} per second.")
    return lines


def training_document(run: TrainingRun) -> dict[str, Any]:
    """Return the figures the page's script draws."""
    rounds = [row["round"] for row in run.curves]
    charts = [
        {"name": name, "word": word, "axis": axis, "log": name == "learning_rate"}
        | thinned(rounds, [scale * float(row[name]) for row in run.curves])  # type: ignore[literal-required]
        for name, word, axis, scale in _SERIES
    ]
    charts.append(
        {"name": "speed", "word": f"{run.slots} per second", "axis": f"{run.slots} per second (on this machine)",
         "log": False} | thinned(list(run.speed), list(run.speed.values()))
    )  # fmt: skip
    found: dict[str, list[list[float]]] = {}
    for row in run.curves:
        for name, accuracy in (row["validation_accuracy"] or {}).items():
            found.setdefault(name, []).append([row["round"], round(100 * accuracy, 3)])
    final = {
        name: [round(100 * score["accuracy"], 3), round(100 * score["half_width"], 3)]
        for name, score in run.validation.items()
    }
    domains = [
        {"name": redact_text(name), "points": found.get(name, []), "final": final.get(name)}
        for name in sorted({*found, *final})
    ]
    return {
        "charts": charts, "validation": domains, "by_domain": _by_domain(run),
        "rounds": (max(rounds) + 1) if rounds else 0,
    }  # fmt: skip


def _by_domain(run: TrainingRun) -> list[dict[str, Any]]:
    """Return by domain (middle round, mean and interval in per cent, episodes) of every stretch; None: no interval."""
    points: dict[str, list[list[float | None]]] = {}
    for stretch in stretches(run):
        for name, found in stretch.domains.items():
            shares = [None if value is None else short(100 * value) for value in (found.mean, found.low, found.high)]
            points.setdefault(name, []).append([(stretch.first + stretch.last) / 2, *shares, found.num])
    return [{"name": redact_text(name), "points": own} for name, own in sorted(points.items())]


def thinned(rounds: Sequence[int], values: Sequence[float]) -> dict[str, list[float | None]]:
    """Return x, mean, low and high of at most ``MAX_POINTS`` equal stretches of rounds."""
    if not rounds:
        return {"x": [], "y": [], "low": [], "high": []}
    parts = np.array_split(np.arange(len(rounds)), min(MAX_POINTS, len(rounds)))
    x, y = np.asarray(rounds, dtype=np.float64), np.asarray(values, dtype=np.float64)
    return {
        "x": [short(float(x[part].mean())) for part in parts],
        "y": [short(float(y[part].mean())) for part in parts],
        "low": [short(float(y[part].min())) for part in parts],
        "high": [short(float(y[part].max())) for part in parts],
    }


def _mean(rows: Sequence[Any], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))
