"""One W&B run per training: settings, a history of its rounds, held-out accuracy, sample episodes, page, checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.reporting.page import PAGE_NAME
from tinytrain_dist.reporting.training_log import RATE
from tinytrain_dist.reporting.training_page import write_training_page
from tinytrain_dist.reporting.training_run import TrainingRun
from tinytrain_dist.reporting.wandb_artifacts import Checkpoint, checkpoint_artifact
from tinytrain_dist.reporting.wandb_session import PROJECT, Entry, Mode, write_entry

MAX_STEPS = 10_000
"""So many rounds a history keeps, evenly spaced; the last one always."""


def log_training_to_wandb(
    run: TrainingRun,
    *,
    mode: Mode = "auto",
    project: str = PROJECT,
    group: str | None = None,
    entity: str | None = None,
) -> Path | None:
    """Write the training as one W&B run; returns its folder, or None where nothing could be written (logged)."""

    def fill(wandb: Any, writer: Any) -> None:
        _fill(wandb, writer, run)

    backbone = str(run.settings.get("backbone", "unknown"))
    entry = Entry(
        folder=run.path,
        run_id=run.path.name,
        created=content_hash(run.record.get("identity", {})),  # a training is what decides its weights
        job_type=run.kind,
        group=group or run.kind,
        tags=[backbone],
        config={name: run.record.get(name) for name in ("settings", "identity", "versions")},
        fill=fill,
        project=project,
        entity=entity,
    )
    return write_entry(entry, mode)


def history(run: TrainingRun) -> list[tuple[int, dict[str, float]]]:
    """Return (round, figures) of at most ``MAX_STEPS`` rounds."""
    step = max(1, -(-len(run.curves) // MAX_STEPS))
    rate = f"{run.slots}_per_second"
    rows = []
    for row in [*run.curves[:-1:step], *run.curves[-1:]]:
        figures = {name: float(row[name]) for name in ("loss", "accuracy", "learning_rate", "head_scale")}
        figures |= {f"validation_accuracy/{k}": v for k, v in (row["validation_accuracy"] or {}).items()}
        figures |= {rate if name == RATE else name: value for name, value in run.figures.get(row["round"], {}).items()}
        rows.append((row["round"], figures))
    return rows


def _fill(wandb: Any, writer: Any, run: TrainingRun) -> None:
    for step, figures in history(run):
        writer.log(figures, step=step)
    if run.pictures:
        writer.log({"episodes": [wandb.Image(str(path), caption=path.stem) for path in run.pictures]})
    for name, score in run.validation.items():
        writer.summary.update({f"held_out/{name}/{key}": value for key, value in score.items()})
    page = run.path / PAGE_NAME
    file = page if page.is_file() else write_training_page(run)
    writer.log({"report": wandb.Html(str(file), inject=False)})
    digest = run.record.get("weights_hash")
    if digest and run.weights.is_file():
        writer.log_artifact(checkpoint_artifact(wandb, Checkpoint(path=run.weights, hash=digest, made_by=None)))
