"""``meta_train``: rounds of episodes on workers, one learner, checkpoints; the same call resumes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain_dist.backbones.card import Initialization
from tinytrain_dist.data.domain import Domain, open_domain
from tinytrain_dist.execution.settings import ExecutorSettings, executor_for, open_worker_group
from tinytrain_dist.execution.threads import use_one_thread
from tinytrain_dist.foundation.runlog import RunLogger, SilentRunLogger
from tinytrain_dist.metatraining.episode_worker import EpisodeWorker
from tinytrain_dist.metatraining.initialization import InitialWeights, initial_weights
from tinytrain_dist.metatraining.listener import TrainingListener
from tinytrain_dist.metatraining.run_folder import RunFolder
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import Slot, SlotGroup, grouped, round_slots
from tinytrain_dist.metatraining.stage import StageName, TrainingResult
from tinytrain_dist.metatraining.training_run import TrainingRun, reused_result
from tinytrain_dist.metatraining.unfolded import unfolded
from tinytrain_dist.metatraining.validation import Validation

RESULT_VERSION = 2
"""Raised whenever the same settings lead to other weights than before."""


class MetaTrainStage:
    """Episodes of the source domains' train classes (``Stage``)."""

    name: StageName = "meta_train"
    initialization: Initialization = "meta_trained"
    keeps_scale = True

    def __init__(self, settings: MetaTrainSettings, domains: Mapping[str, Domain], initial: InitialWeights) -> None:
        self.settings = settings
        self.domains, self.num_rounds = domains, settings.num_rounds
        self.weights, self.head = initial.weights, np.array([initial.scale], dtype=np.float32)
        self.before, self.teacher = initial.card, ""

    def slots(self, round_index: int) -> Sequence[Slot] | Sequence[SlotGroup]:
        """Return the episodes of a round, in groups where several pass the network together."""
        return grouped(round_slots(self.settings, self.domains, round_index), self.settings.episodes_per_forward)

    def upcoming(self, round_index: int) -> Sequence[Any]:
        """Return the slots of a round; none after the last."""
        return self.slots(round_index) if round_index < self.num_rounds else ()


def meta_train(
    settings: MetaTrainSettings,
    *,
    root: Path,
    executor: ExecutorSettings,
    roots: Sequence[str] = (),
    run_id: str | None = None,
    run_logger: RunLogger | None = None,
    command: str = "",
    listener: TrainingListener | None = None,
) -> TrainingResult:
    """Meta-train a backbone, or continue or reuse the run that is there.

    Parameters
    ----------
    root, run_id
        The run's folder is ``root/run_id``; without an id it is named after what decides the result.
    executor
        Where episodes run; the weights do not depend on it.
    roots
        Folders with the user's own domains.
    command
        Command line, for the checkpoint's card.
    listener
        Told of the start, of every round and of every checkpoint.

    Raises
    ------
    TinyTrainError
        Settings that the data cannot satisfy, an unusable initial checkpoint, a folder that is held or belongs
        to other settings, no cluster, a training that diverges, storage that cannot be written.
    """
    start = time.monotonic()
    use_one_thread()
    domains = {name: open_domain(name, roots=roots) for name, _ in settings.domains}
    validation = Validation(settings, domains, roots)
    initial = initial_weights(settings)
    identity = _identity(settings, domains, initial, validation)
    folder = RunFolder(root.resolve(), identity=identity, run_id=run_id)
    with folder.held():
        if folder.finished:
            return reused_result(folder, backbone=settings.backbone)
        stage = MetaTrainStage(settings, domains, unfolded(initial, settings, domains))
        run = TrainingRun(
            stage, validation, folder, run_logger or SilentRunLogger(), command=command, listener=listener
        )
        factory_args = (settings.backbone, settings.resolution, tuple(roots), settings.compute)
        with open_worker_group(executor_for(settings.device, executor), EpisodeWorker, *factory_args) as group:
            return run.execute(group, start)


def _identity(
    settings: MetaTrainSettings, domains: Mapping[str, Domain], initial: InitialWeights, validation: Validation
) -> dict[str, Any]:
    deciding = settings.deciding()
    contents = {name: domain.content_hash for name, domain in domains.items()}
    watched = validation.contents if "validation_domains" in deciding else {}
    return {
        **deciding, "domain_contents": contents | watched, "initial_weights": initial.hash,
        "result_version": RESULT_VERSION,
    }  # fmt: skip
