"""``pretrain``: a backbone learns from labelled views of the source images, before any episode."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain_dist.backbones.card import Initialization
from tinytrain_dist.backbones.teachers import FoundTeacher, find_teacher
from tinytrain_dist.data.domain import Domain, open_domain
from tinytrain_dist.data.samplers.class_pool import permutation
from tinytrain_dist.execution.settings import ExecutorSettings, executor_for, open_worker_group
from tinytrain_dist.execution.threads import use_one_thread
from tinytrain_dist.foundation.errors import ConfigError, StorageError
from tinytrain_dist.foundation.runlog import RunLogger, SilentRunLogger
from tinytrain_dist.foundation.seeding import generator_of, seed_of
from tinytrain_dist.graphs.architectures import layer_graph
from tinytrain_dist.metatraining.batch_worker import Batch, BatchWorker
from tinytrain_dist.metatraining.initialization import InitialWeights, initial_weights
from tinytrain_dist.metatraining.listener import TrainingListener
from tinytrain_dist.metatraining.objectives import Objective
from tinytrain_dist.metatraining.pretrain_settings import PretrainSettings
from tinytrain_dist.metatraining.run_folder import RunFolder
from tinytrain_dist.metatraining.source_images import Ints, SourceImages
from tinytrain_dist.metatraining.stage import StageName, TrainingResult
from tinytrain_dist.metatraining.training_run import TrainingRun, reused_result
from tinytrain_dist.metatraining.unfolded import unfolded
from tinytrain_dist.metatraining.validation import Validation
from tinytrain_dist.metatraining.view_pool import VIEW_VERSION, PoolFolder, ViewPool
from tinytrain_dist.metatraining.view_worker import Teacher, ViewWorker

RESULT_VERSION = 1
"""Raised whenever the same settings and views lead to other weights than before."""


class PretrainStage:
    """Batches of views (``Stage``); every epoch passes over all of them in an order of its own."""

    name: StageName = "pretrain"
    initialization: Initialization = "pretrained"
    keeps_scale = False

    def __init__(
        self,
        settings: PretrainSettings,
        domains: Mapping[str, Domain],
        initial: InitialWeights,
        *,
        pool: ViewPool,
        objective: Objective,
        labels: Ints,
        teacher: str,
    ) -> None:
        self.settings, self.domains, self.weights = settings, domains, initial.weights
        self.before, self.teacher = initial.card, teacher
        num_features = layer_graph(settings.backbone).feature_channels
        self.head = objective.initial_head(num_features, scale=settings.scale, seed=settings.seed)
        self._images = pool.images
        self._targets = pool.unit_features() if objective.name == "distill" else labels[pool.numbers]
        self._epoch, self._places = -1, np.empty(0, dtype=np.int64)
        self._batches_per_epoch = _batches_per_epoch(settings, len(pool.images))
        self.num_rounds = max(1, self._batches_per_epoch * settings.epochs // settings.batches_per_round)

    def slots(self, round_index: int) -> Sequence[Batch]:
        """Return the batches of a round."""
        count = self.settings.batches_per_round
        return [self._batch(round_index * count + index) for index in range(count)]

    def upcoming(self, round_index: int) -> Sequence[Batch]:
        """Return nothing: a batch carries its pixels, and would be sent twice."""
        return ()

    def _batch(self, number: int) -> Batch:
        epoch, place = divmod(number, self._batches_per_epoch)
        chosen = self._order(epoch)[place * self.settings.batch_size :][: self.settings.batch_size]
        return Batch(
            images=self._images[chosen], targets=self._targets[chosen],
            jitter_seed=seed_of("jitter", self.settings.seed, number),
        )  # fmt: skip

    def _order(self, epoch: int) -> Ints:
        """Return the order of the views in an epoch."""
        if self._epoch != epoch:
            self._epoch = epoch
            self._places = permutation(generator_of("epoch", self.settings.seed, epoch), len(self._images))
        return self._places


def _batches_per_epoch(settings: PretrainSettings, num_views: int) -> int:
    if num_views < settings.batch_size:
        raise ConfigError(f"pretrain.batch_size: found {settings.batch_size}; allowed: up to the {num_views} views")
    return num_views // settings.batch_size


def pretrain(
    settings: PretrainSettings,
    *,
    root: Path,
    executor: ExecutorSettings,
    roots: Sequence[str] = (),
    run_id: str | None = None,
    run_logger: RunLogger | None = None,
    command: str = "",
    listener: TrainingListener | None = None,
) -> TrainingResult:
    """Pre-train a backbone, or continue or reuse the run that is there.

    Parameters and errors are those of ``meta_train``; the views and the teacher's answers lie in
    ``root/views-<hash>/`` and serve every training that asks for the same ones.
    """
    start = time.monotonic()
    use_one_thread()
    domains = {name: open_domain(name, roots=roots) for name, _ in settings.domains}
    validation = Validation(settings, domains, roots)
    initial = initial_weights(settings)
    teacher = find_teacher(settings.teacher) if settings.objective == "distill" and settings.teacher else None
    views = _pool_identity(settings, domains, teacher)
    identity = {
        **settings.deciding(), **views, "initial_weights": initial.hash, "watched": validation.contents,
        "result_version": RESULT_VERSION, "view_version": VIEW_VERSION,
    }  # fmt: skip
    folder = RunFolder(root.resolve(), identity=identity, run_id=run_id, kind="pretrain")
    with folder.held():
        if folder.finished:
            return reused_result(folder, backbone=settings.backbone)
        source = SourceImages(list(domains.values()))
        pool_folder = PoolFolder(root.resolve(), identity=views, rows=_rows(settings, source), seed=settings.seed)
        pool = _filled(pool_folder, settings, teacher, executor=executor, roots=roots)
        outputs = pool.features.shape[1] if teacher is not None else source.num_classes
        objective = Objective(
            name=settings.objective, num_outputs=outputs, temperature=settings.temperature,
            relation_weight=settings.relation_weight,
        )  # fmt: skip
        imitated = "" if teacher is None else f"{teacher.source}, {teacher.hash}"
        stage = PretrainStage(
            settings,
            domains,
            unfolded(initial, settings, domains),
            pool=pool,
            objective=objective,
            labels=source.label_of,
            teacher=imitated,
        )
        run = TrainingRun(
            stage, validation, folder, run_logger or SilentRunLogger(), command=command, listener=listener
        )
        factory_args = (settings.backbone, settings.resolution, tuple(roots), settings.compute, objective)
        with open_worker_group(executor_for(settings.device, executor), BatchWorker, *factory_args) as group:
            return run.execute(group, start)


def _filled(
    folder: PoolFolder, settings: PretrainSettings, teacher: FoundTeacher | None, *, executor: ExecutorSettings,
    roots: Sequence[str],
) -> ViewPool:  # fmt: skip
    """Return the pool, its missing views made first."""
    pool = folder.load() if folder.complete else None
    if pool is not None:
        return pool
    seen = (
        Teacher(backbone=teacher.backbone, weights=teacher.weights, resolution=settings.teacher_resolution)
        if teacher is not None
        else None
    )
    names = tuple(name for name, _ in settings.domains)
    with open_worker_group(executor, ViewWorker, names, settings.resolution, tuple(roots), seen) as group:
        folder.fill(group)
    pool = folder.load()
    if pool is None:
        raise StorageError(f"{folder.path}: what was written there cannot be read back; is the storage damaged?")
    return pool


def _pool_identity(
    settings: PretrainSettings, domains: Mapping[str, Domain], teacher: FoundTeacher | None
) -> dict[str, Any]:
    return {
        "domain_contents": {name: domain.content_hash for name, domain in domains.items()},
        "domain_weights": dict(settings.domains), "views_per_image": settings.views_per_image,
        "resolution": settings.resolution, "teacher_hash": None if teacher is None else teacher.hash,
        "teacher_resolution": None if teacher is None else settings.teacher_resolution,
        "domain_order": [name for name, _ in settings.domains],
    }  # fmt: skip


def _rows(settings: PretrainSettings, source: SourceImages) -> list[tuple[int, int]]:
    """Return (image, view number) of every view; a domain's weight scales the views of its images, at least one."""
    views = [max(1, round(settings.views_per_image * weight)) for _, weight in settings.domains]
    domain_of = source.domain_of.tolist()
    return [(number, view) for number in range(len(source)) for view in range(views[domain_of[number]])]
