"""``Stage``: what differs between pre-training and meta-training; the rounds themselves are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tinytrain_dist.backbones.card import CheckpointCard, Initialization
from tinytrain_dist.backbones.flat_state import FlatState
from tinytrain_dist.data.domain import Domain
from tinytrain_dist.metatraining.training_settings import TrainingSettings
from tinytrain_dist.metatraining.validation import ValidationScore

StageName = Literal["pretrain", "meta_train"]


class Stage(Protocol):
    """One training in rounds.

    Attributes
    ----------
    name, initialization
        The stage, and what the card of its weights says they are.
    domains
        Source domains by name.
    num_rounds
        Length of the schedule.
    weights, head
        Where it starts: flat weights, and what is trained beside them (the scale of the cosine head first).
    keeps_scale
        Whether the trained scale belongs to the final checkpoint.
    before
        Card of the checkpoint it starts from; None: drawn from the seed.
    teacher
        Network that is imitated, with its licence; empty: none.
    """

    name: StageName
    initialization: Initialization
    domains: Mapping[str, Domain]
    num_rounds: int
    weights: FlatState
    head: FlatState
    keeps_scale: bool
    before: CheckpointCard | None
    teacher: str

    @property
    def settings(self) -> TrainingSettings:
        """Settings of the stage."""

    def slots(self, round_index: int) -> Sequence[Any]:
        """Return what the workers' ``learn`` gets in a round: a pure function of settings and round."""

    def upcoming(self, round_index: int) -> Sequence[Any]:
        """Return what of a round is worth preparing before it begins; empty where telling costs more."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training left behind.

    Attributes
    ----------
    run_folder, weights_path, weights_hash
        Folder of the run, its final checkpoint and that checkpoint's content hash.
    validation
        Score per validated domain of the final weights: held-out classes of the source domains, and whole
        validation domains.
    num_rounds
        Optimizer steps done in all.
    best_round
        Rounds after which the final weights were reached, where the best were kept.
    resumed_round
        Round of the checkpoint it continued from; None: it started afresh.
    reused
        The run was finished before: nothing was trained now.
    seconds
        Wall time of this call.
    """

    run_folder: Path
    weights_path: Path
    weights_hash: str
    validation: dict[str, ValidationScore]
    num_rounds: int
    best_round: int | None = None
    resumed_round: int | None = None
    reused: bool = False
    seconds: float = 0.0
