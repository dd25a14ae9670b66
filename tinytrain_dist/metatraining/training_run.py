"""``TrainingRun``: rounds on workers, one learner, checkpoints, the best weights; the same call resumes."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import metadata
from typing import Any

from tinytrain_dist import __version__
from tinytrain_dist.backbones.card import CheckpointCard
from tinytrain_dist.backbones.checkpoint import load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.network import Backbone, build_backbone
from tinytrain_dist.execution.worker_group import WorkerGroup
from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.progress import progress
from tinytrain_dist.foundation.runlog import RunLogger
from tinytrain_dist.metatraining.best import Best
from tinytrain_dist.metatraining.checkpoints import CheckpointFolder
from tinytrain_dist.metatraining.curves import CurveRow, figures_of, read_curves, write_curves
from tinytrain_dist.metatraining.learner import Learner
from tinytrain_dist.metatraining.listener import SilentTrainingListener, TrainingListener
from tinytrain_dist.metatraining.replica import SlotResult
from tinytrain_dist.metatraining.run_folder import RunFolder
from tinytrain_dist.metatraining.slots import domains_of
from tinytrain_dist.metatraining.stage import Stage, TrainingResult
from tinytrain_dist.metatraining.training_card import seconds_so_far, training_card
from tinytrain_dist.metatraining.validation import Validation, ValidationScore, mean_accuracy

_log = logger(__name__)


def reused_result(folder: RunFolder, *, backbone: str) -> TrainingResult:
    """Return the result of a finished run, its weights checked."""
    _log.info("%s is finished: its weights are used as they are", folder.path)
    found = load_checkpoint(folder.weights, backbone=backbone)
    document = folder.read()
    scores = {name: ValidationScore(**values) for name, values in document.get("validation", {}).items()}
    return TrainingResult(
        run_folder=folder.path, weights_path=folder.weights, weights_hash=found.hash, validation=scores,
        num_rounds=document.get("num_rounds", 0), best_round=document.get("best_round"), reused=True,
    )  # fmt: skip


class TrainingRun:
    """One run in progress: learner, curves, checkpoints, the best weights."""

    def __init__(
        self, stage: Stage, validation: Validation, folder: RunFolder, run_logger: RunLogger, *, command: str,
        listener: TrainingListener | None = None,
    ) -> None:  # fmt: skip
        self._stage, self._settings, self._validation = stage, stage.settings, validation
        self._folder, self._run_logger, self._command = folder, run_logger, command
        self._backbone: Backbone = build_backbone(stage.settings.backbone, resolution=stage.settings.resolution)
        self._learner = Learner(
            stage.settings, self._backbone.graph, stage.weights, head=stage.head, num_rounds=stage.num_rounds
        )
        self._checkpoints = CheckpointFolder(folder.checkpoints, folder.identity_hash, stage.settings.checkpoints_kept)
        self._listener = listener or SilentTrainingListener()
        self._curves: list[CurveRow] = []
        self._best: Best | None = None
        self._started, self._earlier_s = time.monotonic(), 0.0

    def execute(self, group: WorkerGroup, start: float) -> TrainingResult:
        """Do the rounds that are missing, validate, write the final checkpoint."""
        self._started = start
        self._write_record(exit_code=None)
        resumed = self._resume()
        write_curves(self._folder.curves, self._curves)  # rounds that are done again are no longer among them
        self._listener.started(self._folder.path)
        self._train(group)
        num_rounds, best_round = self._learner.round, self._take_best()
        scores = self._validation.scores(self._learner.weights, group)
        weights_hash = self._finish(scores, time.monotonic() - start, num_rounds=num_rounds, best_round=best_round)
        return TrainingResult(
            run_folder=self._folder.path, weights_path=self._folder.weights, weights_hash=weights_hash,
            validation=scores, num_rounds=num_rounds, best_round=best_round, resumed_round=resumed,
            seconds=time.monotonic() - start,
        )  # fmt: skip

    def _resume(self) -> int | None:
        found = self._checkpoints.restore(self._learner)
        if found is None:
            return None
        resumed, self._best = found
        self._earlier_s = seconds_so_far(self._checkpoints.card(resumed), self._stage.before)
        _log.info("%s: continued from the checkpoint of round %d", self._folder.path, resumed)
        self._curves = [row for row in self._earlier_curves() if row["round"] < resumed]
        return resumed

    def _earlier_curves(self) -> list[CurveRow]:
        """Return the rounds recorded so far; weights that are good are continued without a record, too."""
        try:
            return read_curves(self._folder.curves)
        except StorageError as error:
            _log.warning("the curves start anew: %s", error)
            return []

    @property
    def _stopped(self) -> bool:
        patience = self._settings.patience
        return bool(patience and self._best is not None and self._best.worse_since >= patience)

    def _train(self, group: WorkerGroup) -> None:
        settings, learner, total = self._settings, self._learner, self._stage.num_rounds
        with progress(f"{self._stage.name} rounds", total=total, done=learner.round) as meter:
            while learner.round < total and not self._stopped:
                row, seconds = self._round(group)
                if settings.validation_every and learner.round % settings.validation_every == 0:
                    self._validate(row, group)
                self._report(row, seconds)
                self._listener.round_done(row)
                if learner.round % settings.checkpoint_every == 0 or learner.round == total or self._stopped:
                    self._save()
                meter.advance(note=f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}")

    def _round(self, group: WorkerGroup) -> tuple[CurveRow, dict[str, float]]:
        """Do the next round: its row of the curves, seconds on the workers and of the step.

        An interruption saves what is done so far.
        """
        learner = self._learner
        start = time.monotonic()
        slots, upcoming = self._stage.slots(learner.round), self._stage.upcoming(learner.round + 1)
        shared = [learner.weights, learner.head]
        try:
            results: list[SlotResult] = group.run_round("learn", shared, slots, upcoming=upcoming)
        except KeyboardInterrupt:
            self._save()
            raise
        worked = time.monotonic()
        row = self._record(slots, results)
        num_slots = sum(result.num_slots for result in results)
        return row, {"work": worked - start, "step": time.monotonic() - worked, "slots": num_slots}

    def _record(self, slots: Sequence[Any], results: Sequence[SlotResult]) -> CurveRow:
        """Take the learner's step and append the round to the curves."""
        learner = self._learner
        row = CurveRow(
            round=learner.round,
            loss=sum(result.loss for result in results) / len(results),
            accuracy=sum(result.accuracy for result in results) / len(results),
            learning_rate=learner.rate_of(learner.round),
            head_scale=learner.scale,
            validation_accuracy=None,
            episode_accuracies=_by_domain(slots, results),
        )
        learner.step(results)
        self._curves.append(row)
        return row

    def _validate(self, row: CurveRow, group: WorkerGroup) -> None:
        start = time.monotonic()
        scores = self._validation.scores(self._learner.weights, group)
        spent = {f"{self._stage.name}/seconds_of_validation": time.monotonic() - start}
        row["validation_accuracy"] = {name: value.accuracy for name, value in scores.items()}
        widths = {f"{self._stage.name}/validation_half_width/{n}": value.half_width for n, value in scores.items()}
        self._run_logger.log(widths | spent, step=row["round"])
        if not (self._settings.keep_best or self._settings.patience):
            return
        mean = mean_accuracy(scores)
        if self._best is None or mean > self._best.score:
            card = self._card(_accuracies(scores))
            self._best = self._checkpoints.save_best(self._learner, self._backbone, card, score=mean)
        else:
            self._best = replace(self._best, worse_since=self._best.worse_since + 1)

    def _take_best(self) -> int | None:
        """Make the best weights the learner's, if they are to be kept; return their round."""
        if not self._settings.keep_best or self._best is None:
            return None
        found = self._checkpoints.load_best(self._best, backbone=self._settings.backbone)
        head = self._learner.head
        head[0] = found.head_scale
        self._learner.take(found.state, head)
        return self._best.round

    def _report(self, row: CurveRow, seconds: dict[str, float]) -> None:
        name, total = self._stage.name, seconds["work"] + seconds["step"]
        values = {f"{name}/{key}": value for key, value in figures_of(row).items()} | {
            f"{name}/slots_per_second": seconds["slots"] / max(total, 1e-9),
            f"{name}/seconds_on_workers": seconds["work"],
            f"{name}/seconds_of_step": seconds["step"],
        }
        self._run_logger.log(values, step=row["round"])

    def _save(self) -> None:
        write_curves(self._folder.curves, self._curves)
        self._checkpoints.save(self._learner, self._backbone, self._card({}), best=self._best)
        self._listener.saved(self._folder.path)

    def _finish(
        self, scores: dict[str, ValidationScore], seconds: float, *, num_rounds: int, best_round: int | None
    ) -> str:
        metrics = _accuracies(scores)
        flat_to_state(self._backbone, self._learner.weights)
        scale = self._learner.scale if self._stage.keeps_scale else None
        weights_hash = save_checkpoint(self._folder.weights, self._backbone, self._card(metrics), head_scale=scale)
        write_curves(self._folder.curves, self._curves)
        self._write_record(
            exit_code=0, weights_hash=weights_hash, seconds=round(seconds, 3), num_rounds=num_rounds,
            best_round=best_round, validation={name: asdict(value) for name, value in scores.items()},
        )  # fmt: skip
        self._folder.mark_finished()
        name = self._stage.name
        self._run_logger.log({f"{name}/{key}": value for key, value in metrics.items()}, step=num_rounds)
        return weights_hash

    def _write_record(self, **values: Any) -> None:
        settings, planned = asdict(self._settings), self._stage.num_rounds
        self._folder.write(settings=settings, versions=_versions(), planned_rounds=planned, **values)

    def _card(self, metrics: dict[str, float]) -> CheckpointCard:
        seconds = self._earlier_s + time.monotonic() - self._started
        return training_card(
            self._stage, command=self._command, run_id=self._folder.run_id, seconds=seconds, metrics=metrics
        )


def _by_domain(slots: Sequence[Any], results: Sequence[SlotResult]) -> dict[str, list[float]] | None:
    """Return the accuracy of every episode of a round by domain, in slot order; None where slots are batches."""
    found: dict[str, list[float]] = {}
    for slot, result in zip(slots, results, strict=True):
        for domain, value in zip(domains_of(slot), result.accuracies, strict=True):
            found.setdefault(domain, []).append(value)
    return dict(sorted(found.items())) or None


def _accuracies(scores: dict[str, ValidationScore]) -> dict[str, float]:
    return {f"validation_accuracy/{name}": value.accuracy for name, value in scores.items()}


def _versions() -> dict[str, str]:
    packages = ("torch", "numpy", "ray", "pyarrow", "safetensors")
    return {
        "tinytrain_dist": __version__, "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }  # fmt: skip
