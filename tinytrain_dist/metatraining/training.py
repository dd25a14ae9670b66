"""``meta_train``: rounds of episodes on workers, one learner, checkpoints; the same command resumes."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tinytrain_dist import __version__
from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.network import Backbone, build_backbone
from tinytrain_dist.data.domain import Domain, open_domain
from tinytrain_dist.data.episodes import check_episodes
from tinytrain_dist.execution.settings import ExecutorSettings, open_worker_group
from tinytrain_dist.execution.threads import use_one_thread
from tinytrain_dist.execution.worker_group import WorkerGroup
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.progress import progress
from tinytrain_dist.foundation.runlog import RunLogger, SilentRunLogger
from tinytrain_dist.metatraining.checkpoints import CheckpointFolder
from tinytrain_dist.metatraining.curves import CurveRow, read_curves, write_curves
from tinytrain_dist.metatraining.episode_worker import EpisodeWorker, SlotResult
from tinytrain_dist.metatraining.initialization import InitialWeights, initial_weights
from tinytrain_dist.metatraining.learner import Learner
from tinytrain_dist.metatraining.run_folder import RunFolder
from tinytrain_dist.metatraining.settings import MetaTrainSettings
from tinytrain_dist.metatraining.slots import round_slots
from tinytrain_dist.metatraining.validation import ValidationScore, validate

_log = logger(__name__)
RESULT_VERSION = 1
"""Raised whenever the same settings lead to other weights than before."""


@dataclass(frozen=True, kw_only=True)
class MetaTrainResult:
    """What a meta-training left behind.

    Attributes
    ----------
    run_folder, weights_path, weights_hash
        Folder of the run, its final checkpoint and that checkpoint's content hash.
    validation
        Score per source domain, on held-out classes, of the final weights.
    num_rounds
        Optimizer steps of the run in all.
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
    resumed_round: int | None = None
    reused: bool = False
    seconds: float = 0.0


def meta_train(
    settings: MetaTrainSettings,
    *,
    root: Path,
    executor: ExecutorSettings,
    roots: Sequence[str] = (),
    run_id: str | None = None,
    run_logger: RunLogger | None = None,
    command: str = "",
) -> MetaTrainResult:
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

    Raises
    ------
    TinyTrainError
        Settings that the data cannot satisfy, an unusable initial checkpoint, a folder that is held or belongs
        to other settings, no cluster, a training that diverges, storage that cannot be written.
    """
    start = time.monotonic()
    use_one_thread()
    domains = _open_domains(settings, roots)
    initial = initial_weights(settings)
    folder = RunFolder(root.resolve(), identity=_identity(settings, domains, initial), run_id=run_id)
    with folder.held():
        if folder.finished:
            return _reuse(settings, folder)
        run = _Run(settings, domains, initial, folder, run_logger or SilentRunLogger(), command)
        factory_args = (settings.backbone, settings.resolution, tuple(roots))
        with open_worker_group(executor, EpisodeWorker, *factory_args) as group:
            return run.execute(group, start)


def _open_domains(settings: MetaTrainSettings, roots: Sequence[str]) -> dict[str, Domain]:
    domains = {name: open_domain(name, roots=roots) for name, _ in settings.domains}
    for domain in domains.values():
        check_episodes(domain, split="valid", settings=settings.validation)
    return domains


def _identity(settings: MetaTrainSettings, domains: dict[str, Domain], initial: InitialWeights) -> dict[str, Any]:
    contents = {name: domain.content_hash for name, domain in domains.items()}
    return {
        **settings.deciding(), "domain_contents": contents, "initial_weights": initial.hash,
        "result_version": RESULT_VERSION,
    }  # fmt: skip


def _reuse(settings: MetaTrainSettings, folder: RunFolder) -> MetaTrainResult:
    """Return the result of a finished run, its weights checked."""
    _log.info("%s is finished: its weights are used as they are", folder.path)
    found = load_checkpoint(folder.weights, backbone=settings.backbone)
    scores = {name: ValidationScore(**values) for name, values in folder.read().get("validation", {}).items()}
    return MetaTrainResult(
        run_folder=folder.path, weights_path=folder.weights, weights_hash=found.hash, validation=scores,
        num_rounds=settings.num_rounds, reused=True,
    )  # fmt: skip


class _Run:
    """One run in progress: learner, curves, checkpoints."""

    def __init__(
        self,
        settings: MetaTrainSettings,
        domains: dict[str, Domain],
        initial: InitialWeights,
        folder: RunFolder,
        run_logger: RunLogger,
        command: str,
    ) -> None:
        self._settings, self._domains, self._folder = settings, domains, folder
        self._run_logger, self._command = run_logger, command
        self._backbone: Backbone = build_backbone(settings.backbone, resolution=settings.resolution)
        self._learner = Learner(settings, self._backbone.graph, initial.weights, scale=initial.scale)
        self._checkpoints = CheckpointFolder(folder.checkpoints, folder.identity_hash, settings.checkpoints_kept)
        self._curves: list[CurveRow] = []

    def execute(self, group: WorkerGroup, start: float) -> MetaTrainResult:
        """Do the rounds that are missing, validate, write the final checkpoint."""
        self._folder.write(settings=asdict(self._settings), versions=_versions(), exit_code=None)
        resumed = self._resume()
        self._train(group)
        scores = validate(self._settings, self._domains, weights=self._learner.weights, group=group)
        weights_hash = self._finish(scores, time.monotonic() - start)
        return MetaTrainResult(
            run_folder=self._folder.path, weights_path=self._folder.weights, weights_hash=weights_hash,
            validation=scores, num_rounds=self._settings.num_rounds, resumed_round=resumed,
            seconds=time.monotonic() - start,
        )  # fmt: skip

    def _resume(self) -> int | None:
        resumed = self._checkpoints.restore(self._learner)
        if resumed is not None:
            _log.info("%s: continued from the checkpoint of round %d", self._folder.path, resumed)
            self._curves = [row for row in read_curves(self._folder.curves) if row["round"] < resumed]
        return resumed

    def _train(self, group: WorkerGroup) -> None:
        settings, learner = self._settings, self._learner
        with progress("meta-training rounds", total=settings.num_rounds, done=learner.round) as meter:
            while learner.round < settings.num_rounds:
                results = self._round(group)
                row = self._record(results)
                if settings.validation_every and learner.round % settings.validation_every == 0:
                    scores = validate(settings, self._domains, weights=learner.weights, group=group)
                    row["validation_accuracy"] = {name: value.accuracy for name, value in scores.items()}
                self._report(row)
                if learner.round % settings.checkpoint_every == 0 or learner.round == settings.num_rounds:
                    self._save()
                meter.advance(note=f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}")

    def _round(self, group: WorkerGroup) -> list[SlotResult]:
        """Run the slots of the next round; an interruption saves what is done so far."""
        learner = self._learner
        slots = round_slots(self._settings, self._domains, learner.round)
        try:
            results: list[SlotResult] = group.run_round("learn", [learner.weights, learner.scale], slots)
        except KeyboardInterrupt:
            self._save()
            raise
        return results

    def _record(self, results: Sequence[SlotResult]) -> CurveRow:
        """Take the learner's step and append the round to the curves."""
        learner = self._learner
        row = CurveRow(
            round=learner.round,
            loss=sum(result.loss for result in results) / len(results),
            accuracy=sum(result.accuracy for result in results) / len(results),
            learning_rate=learner.rate_of(learner.round),
            head_scale=learner.scale,
            validation_accuracy=None,
        )
        learner.step(results)
        self._curves.append(row)
        return row

    def _report(self, row: CurveRow) -> None:
        values = {
            "meta_train/loss": row["loss"],
            "meta_train/accuracy": row["accuracy"],
            "meta_train/learning_rate": row["learning_rate"],
            "meta_train/head_scale": row["head_scale"],
        }
        for name, accuracy in (row["validation_accuracy"] or {}).items():
            values[f"meta_train/validation_accuracy/{name}"] = accuracy
        self._run_logger.log(values, step=row["round"])

    def _save(self) -> None:
        write_curves(self._folder.curves, self._curves)
        self._checkpoints.save(self._learner, self._backbone, self._card({}))

    def _finish(self, scores: dict[str, ValidationScore], seconds: float) -> str:
        metrics = {f"validation_accuracy/{name}": value.accuracy for name, value in scores.items()}
        flat_to_state(self._backbone, self._learner.weights)
        weights_hash = save_checkpoint(
            self._folder.weights, self._backbone, self._card(metrics), head_scale=self._learner.scale
        )
        write_curves(self._folder.curves, self._curves)
        self._folder.write(
            settings=asdict(self._settings), versions=_versions(), exit_code=0, weights_hash=weights_hash,
            seconds=round(seconds, 3), validation={name: asdict(value) for name, value in scores.items()},
        )  # fmt: skip
        self._folder.mark_finished()
        self._run_logger.log({f"meta_train/{key}": value for key, value in metrics.items()}, step=self._learner.round)
        return weights_hash

    def _card(self, metrics: dict[str, float]) -> CheckpointCard:
        data = ", ".join(f"{name} (train classes, {domain.content_hash})" for name, domain in self._domains.items())
        return CheckpointCard(
            initialization="meta_trained", resolution=self._settings.resolution, command=self._command, data=data,
            metrics=metrics, source=f"tinytrain_dist {__version__}, run {self._folder.run_id}",
        )  # fmt: skip


def _versions() -> dict[str, str]:
    packages = ("torch", "numpy", "ray", "pyarrow", "safetensors")
    return {
        "tinytrain_dist": __version__, "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }  # fmt: skip
