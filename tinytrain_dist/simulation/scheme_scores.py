"""Scores of static schemes on tasks, computed on an executor and kept in a file: what is there is not run again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytrain_dist.adaptation.fine_tuning import fine_tune
from tinytrain_dist.adaptation.methods.sparse_update import largest_inputs
from tinytrain_dist.adaptation.weight_norms import channel_norms
from tinytrain_dist.costs.schemes import Scheme, scheme_plan
from tinytrain_dist.data.episodes import EpisodeSpec
from tinytrain_dist.execution.executor import Executor, Shared
from tinytrain_dist.foundation.errors import RunLockedError, StorageError, TooManyFailuresError
from tinytrain_dist.foundation.hashing import canonical_json
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.simulation.request import UnitSetup
from tinytrain_dist.simulation.unit import Unit
from tinytrain_dist.simulation.worker import network_of

MAX_ATTEMPTS = 3
DEADLINE_S = 3600.0


def score_schemes(
    flat: NDArray[np.float32], setup: UnitSetup, spec: EpisodeSpec, schemes: tuple[Scheme, ...]
) -> list[float]:
    """Return the query accuracy after tuning each scheme on one task; 0 where it diverged. Runs in a worker.

    The earliest cut goes first: later ones continue from what the frozen layers made for it.
    """
    network = network_of(setup, flat)
    task = Unit(spec, network=network, setup=setup, attempt=1).task
    norms = partial(channel_norms, network)
    plans = [largest_inputs(scheme_plan(network.graph, scheme), norms) for scheme in schemes]
    scores = [0.0] * len(plans)
    for number in sorted(range(len(plans)), key=lambda i: (plans[i].earliest_layer or 0, i)):
        scores[number] = fine_tune(task, plans[number]).accuracy_after or 0.0
    return scores


@dataclass
class ScoreFile:
    """Accuracy by task and scheme, in a JSON file that names what the numbers depend on."""

    path: Path
    identity: Mapping[str, Any]
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def open(self) -> ScoreFile:
        """Read what an earlier command left; raises where it belongs to another search, is damaged or not writable."""
        if not self.path.exists():
            self._write()  # what cannot be written is said now, not after the first hour
            return self
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            before = document["identity"]
            scores = {t: {s: float(x) for s, x in row.items()} for t, row in document["scores"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"{self.path}: is no state of a search ({error}); remove it to start over") from error
        now = json.loads(canonical_json(dict(self.identity)))
        differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if differing:
            changes = ", ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} asked" for key in differing)
            raise RunLockedError(f"{self.path}: holds another search ({changes}); remove it or give another --out")
        self.scores = scores
        return self

    def add(self, task_id: str, found: Mapping[str, float]) -> None:
        """Keep scores of one task and write the file."""
        self.scores.setdefault(task_id, {}).update(found)
        self._write()

    def _write(self) -> None:
        atomic_write(self.path, canonical_json({"identity": dict(self.identity), "scores": self.scores}).encode())


@dataclass
class SchemeScores:
    """Mean accuracy of schemes over tasks, each (task, scheme) computed once."""

    workers: Executor
    weights: Shared
    setup: Shared
    file: ScoreFile

    def mean(self, schemes: Sequence[Scheme], specs: Sequence[EpisodeSpec]) -> list[float]:
        """Return the mean accuracy of each scheme over the tasks."""
        self._compute(schemes, specs)
        table = [self.file.scores[spec.task_id] for spec in specs]
        return [sum(row[scheme.hash] for row in table) / len(table) for scheme in schemes]

    def _compute(self, schemes: Sequence[Scheme], specs: Sequence[EpisodeSpec]) -> None:
        flying: dict[int, tuple[EpisodeSpec, tuple[Scheme, ...], int]] = {}
        for spec in specs:
            known = self.file.scores.get(spec.task_id, {})
            missing = tuple({s.hash: s for s in schemes if s.hash not in known}.values())
            if missing:
                flying[self._submit(spec, missing)] = spec, missing, 1
        while flying:
            outcome = self.workers.next_outcome(timeout_s=1.0)
            if outcome is None:
                continue
            spec, asked, attempt = flying.pop(outcome.ticket)
            if outcome.failure is None:
                assert outcome.value is not None
                self.file.add(spec.task_id, {s.hash: x for s, x in zip(asked, outcome.value, strict=True)})
            elif outcome.failure.kind in ("crashed", "lost") and attempt < MAX_ATTEMPTS:
                flying[self._submit(spec, asked)] = spec, asked, attempt + 1
            else:
                failure = outcome.failure
                raise TooManyFailuresError(f"task {spec.task_id} {failure.kind}: {failure.message}; {self.file.path}")

    def _submit(self, spec: EpisodeSpec, schemes: tuple[Scheme, ...]) -> int:
        return self.workers.submit(score_schemes, self.weights, self.setup, spec, schemes, deadline_s=DEADLINE_S)
