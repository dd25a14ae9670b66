"""Checkpoints of a training: weights and learner state, written atomically, checked when read.

``round-000050.weights.safetensors`` is a checkpoint of its own; ``round-000050.learner.safetensors`` is written
after it and names its hash, so a checkpoint counts only when both are whole. The best weights, where they are kept, lie
in ``best-000040.weights.safetensors``; a checkpoint names the best so far and counts only while that file is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from tinytrain_dist.backbones.card import CheckpointCard, read_card, read_header
from tinytrain_dist.backbones.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tinytrain_dist.backbones.flat_state import flat_to_state
from tinytrain_dist.backbones.network import Backbone
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.foundation.hashing import bytes_hash
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.metatraining.best import Best
from tinytrain_dist.metatraining.learner import Learner

_log = logger(__name__)
_LEARNER_KEY = "tinytrain_learner"
_NAME = re.compile(r"round-(\d{6,})\.learner\.safetensors")
Tensors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one run; ``identity`` is the hash of what decides its weights."""

    folder: Path
    identity: str
    keep: int

    def save(self, learner: Learner, backbone: Backbone, card: CheckpointCard, *, best: Best | None = None) -> None:
        """Write the learner after ``learner.round`` rounds, then remove all but the newest ``keep``."""
        flat_to_state(backbone, learner.weights)
        weights, state_path = self._paths(learner.round)
        weights_hash = save_checkpoint(weights, backbone, card, head_scale=learner.scale)
        state = learner.state()
        note = {
            "round": learner.round, "identity": self.identity, "weights": weights_hash, "digest": _digest(state),
            "best": None if best is None else best.note(),
        }  # fmt: skip
        atomic_write(state_path, safetensors.numpy.save(dict(state), metadata={_LEARNER_KEY: json.dumps(note)}))
        for old in self.rounds()[: -self.keep]:
            for path in reversed(self._paths(old)):
                path.unlink(missing_ok=True)
        self._remove_unused_best()

    def save_best(self, learner: Learner, backbone: Backbone, card: CheckpointCard, *, score: float) -> Best:
        """Write the learner's weights as the best so far."""
        flat_to_state(backbone, learner.weights)
        weights_hash = save_checkpoint(self._best(learner.round), backbone, card, head_scale=learner.scale)
        return Best(round=learner.round, score=score, weights=weights_hash)

    def load_best(self, best: Best, *, backbone: str) -> Checkpoint:
        """Return the best weights; raises ``CheckpointError`` if they are not those that were written."""
        path = self._best(best.round)
        found = load_checkpoint(path, backbone=backbone)
        if found.hash != best.weights:
            raise CheckpointError(f"{path}: holds {found.hash}, not the best weights {best.weights}")
        return found

    def _best(self, round_index: int) -> Path:
        return self.folder / f"best-{round_index:06d}.weights.safetensors"

    def _remove_unused_best(self) -> None:
        """Remove best weights that no checkpoint names."""
        named = set()
        for kept in self.rounds():
            try:
                best = Best.of_note(_read_state(self._paths(kept)[1])[0].get("best"))
            except (CheckpointError, TypeError):
                continue  # damaged: ``restore`` will say so
            named |= {self._best(best.round)} if best else set()
        for path in self.folder.glob("best-*.weights.safetensors"):
            if path not in named:
                path.unlink(missing_ok=True)

    def card(self, round_index: int) -> CheckpointCard:
        """Return the card of the checkpoint after so many rounds."""
        return read_card(self._paths(round_index)[0])

    def rounds(self) -> list[int]:
        """Return the rounds that have a learner file, ascending."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.glob("*.learner.safetensors"))
        return sorted(int(match.group(1)) for match in names if match)

    def restore(self, learner: Learner) -> tuple[int, Best | None] | None:
        """Continue ``learner`` from the newest good checkpoint: its round and the best before it; None: there is none.

        A damaged one is named in the log and the one before it is used.
        """
        for round_index in reversed(self.rounds()):
            try:
                return round_index, self._load(learner, round_index)
            except CheckpointError as error:
                _log.warning("checkpoint of round %d is not used: %s", round_index, error)
        return None

    def _load(self, learner: Learner, round_index: int) -> Best | None:
        weights_path, state_path = self._paths(round_index)
        note, state = _read_state(state_path)
        weights = load_checkpoint(weights_path, backbone=learner.graph.name)
        expected = {
            "round": round_index, "identity": self.identity, "weights": weights.hash, "digest": _digest(state),
        }  # fmt: skip
        if wrong := [key for key, value in expected.items() if note.get(key) != value]:
            raise CheckpointError(f"{state_path}: damaged or of another run ({', '.join(wrong)} differ)")
        try:
            best = Best.of_note(note.get("best"))
        except TypeError as error:
            raise CheckpointError(f"{state_path}: its note of the best weights is damaged") from error
        if best is not None:
            self.load_best(best, backbone=learner.graph.name)
        learner.restore(weights=weights.state, state=state, round_index=round_index)
        return best

    def _paths(self, round_index: int) -> tuple[Path, Path]:
        stem = f"round-{round_index:06d}"
        return self.folder / f"{stem}.weights.safetensors", self.folder / f"{stem}.learner.safetensors"


def _read_state(path: Path) -> tuple[dict[str, object], Tensors]:
    try:
        note = json.loads(read_header(path)["__metadata__"][_LEARNER_KEY])
        tensors = safetensors.numpy.load(path.read_bytes())
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as learner state: {error}") from error
    if not isinstance(note, dict):
        raise CheckpointError(f"{path}: cannot be read as learner state: its note is no mapping")
    return note, tensors


def _digest(state: Tensors) -> str:
    parts = [name.encode() + np.ascontiguousarray(state[name]).tobytes() for name in sorted(state)]
    return bytes_hash(b"".join(parts))
