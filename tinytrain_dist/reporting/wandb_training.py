"""One W&B run per training: settings, sample episodes, a history of its rounds, held-out accuracy, page, checkpoint.

What is written is the same whether the training is over (``log_training_to_wandb``) or goes on (``wandb_live.py``).
"""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import Any

from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.metatraining.curves import CurveRow, figures_of
from tinytrain_dist.reporting.page import PAGE_NAME
from tinytrain_dist.reporting.training_log import RATE
from tinytrain_dist.reporting.training_page import write_training_page
from tinytrain_dist.reporting.training_run import TrainingRun
from tinytrain_dist.reporting.training_stretches import stretch_rounds, stretch_to
from tinytrain_dist.reporting.wandb_artifacts import Checkpoint, checkpoint_artifact
from tinytrain_dist.reporting.wandb_session import PROJECT, Entry, Fill, Mode, write_entry

MAX_STEPS = 10_000
"""So many rounds a history keeps, evenly spaced; the last one and the ends of stretches always."""


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
        log_pictures(wandb, writer, run)
        log_end(wandb, writer, run)

    return write_entry(training_entry(run, fill, project=project, group=group, entity=entity), mode)


def training_entry(run: TrainingRun, fill: Fill, *, project: str, group: str | None, entity: str | None) -> Entry:
    """Return the W&B run of a training, the same one from its start to its end."""
    return Entry(
        folder=run.path,
        run_id=run.path.name,
        created=content_hash(run.record.get("identity", {})),  # a training is what decides its weights
        job_type=run.kind,
        group=group or run.kind,
        tags=[str(run.settings.get("backbone", "unknown"))],
        config={name: run.record.get(name) for name in ("settings", "identity", "versions")},
        fill=fill,
        project=project,
        entity=entity,
    )


def log_pictures(wandb: Any, writer: Any, run: TrainingRun) -> None:
    """Add the sample episodes to the first step that is logged; a W&B run that goes on has them."""
    if run.pictures and _next_step(writer) == 0:
        shown = [wandb.Image(str(path), caption=path.stem) for path in run.pictures]
        writer.log({"episodes": shown}, step=0, commit=False)


def log_rounds(writer: Any, run: TrainingRun, *, over: bool = False) -> None:
    """Log the rounds that the W&B run does not have yet: steps only go forward."""
    for step, figures in history(run, first=_next_step(writer), over=over):
        writer.log(figures, step=step, commit=True)


def _next_step(writer: Any) -> int:
    """Return the first step that the W&B run does not have; one that is continued says so before its first ``log``."""
    return max(int(writer.step), int(writer.starting_step))


def log_end(wandb: Any, writer: Any, run: TrainingRun) -> None:
    """Log what is left of the rounds and what there is at the end: held-out accuracy, page, checkpoint."""
    log_rounds(writer, run, over=True)
    for name, score in run.validation.items():
        writer.summary.update({f"held_out/{name}/{key}": value for key, value in score.items()})
    page = run.path / PAGE_NAME
    file = page if page.is_file() else write_training_page(run)
    writer.log({"report": wandb.Html(str(file), inject=False)} | _unfinished_stretch(run))
    digest = run.record.get("weights_hash")
    if digest and run.weights.is_file():
        writer.log_artifact(checkpoint_artifact(wandb, Checkpoint(path=run.weights, hash=digest, made_by=None)))


def history(run: TrainingRun, *, first: int = 0, over: bool = True) -> list[tuple[int, dict[str, float]]]:
    """Return (round, figures) from round ``first`` on, of at most ``MAX_STEPS`` rounds; the last where it is ``over``.

    Which rounds they are is known from the number that is planned: the same ones while the training runs.
    """
    pace, width = max(1, -(-run.length // MAX_STEPS)), stretch_rounds(run)
    rows = run.curves[bisect_left(run.curves, first, key=lambda row: row["round"]) :]
    found = []
    for row in rows:
        number = row["round"]
        stretch = stretch_to(run, number).figures() if (number + 1) % width == 0 else {}
        if stretch or number % pace == 0 or (over and row is rows[-1]):
            found.append((number, _figures(run, row) | stretch))
    return found


def _figures(run: TrainingRun, row: CurveRow) -> dict[str, float]:
    rate, heard = f"{run.slots}_per_second", run.figures.get(row["round"], {})
    return figures_of(row) | {rate if name == RATE else name: value for name, value in heard.items()}


def _unfinished_stretch(run: TrainingRun) -> dict[str, float]:
    """Return the figures of the rounds after the last whole stretch."""
    last = run.curves[-1]["round"] if run.curves else -1
    return {} if (last + 1) % stretch_rounds(run) == 0 else stretch_to(run, last).figures()
