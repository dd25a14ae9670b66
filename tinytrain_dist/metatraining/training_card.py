"""The card of what a training made: command, data, teacher, time and machine, those of earlier stages included."""

from __future__ import annotations

from collections.abc import Mapping

from tinytrain_dist import __version__
from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.measuring.machine import read_machine
from tinytrain_dist.metatraining.stage import Stage

SECONDS_PER_HOUR = 3600.0


def training_card(
    stage: Stage, *, command: str, run_id: str, seconds: float, metrics: Mapping[str, float]
) -> CheckpointCard:
    """Return the card of the stage's weights; ``seconds`` is the wall time of this stage alone."""
    before = stage.before
    data = ", ".join(f"{name} (train classes, {domain.content_hash})" for name, domain in stage.domains.items())
    return CheckpointCard(
        initialization=stage.initialization, resolution=stage.settings.resolution, command=command,
        data=data if before is None else f"{data}; before that: {before.data or 'not known'}",
        metrics=dict(metrics), source=f"tinytrain_dist {__version__}, run {run_id}",
        licence="" if before is None else before.licence,
        teacher=stage.teacher or ("" if before is None else before.teacher),
        initial="" if before is None else before.content_hash,
        hours=round(hours_before(before) + seconds / SECONDS_PER_HOUR, 4), machine=read_machine().board,
    )  # fmt: skip


def hours_before(card: CheckpointCard | None) -> float:
    """Return the hours of the stages that led to a card; 0 where it does not say."""
    return 0.0 if card is None or card.hours is None else card.hours


def seconds_so_far(saved: CheckpointCard, before: CheckpointCard | None) -> float:
    """Return the seconds of this stage alone when a checkpoint with the card ``saved`` was written."""
    return max(0.0, hours_before(saved) - hours_before(before)) * SECONDS_PER_HOUR
