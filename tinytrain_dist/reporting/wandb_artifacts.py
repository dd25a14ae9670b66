"""Files a W&B run makes or uses. Equal files give equal artifacts: that is how a simulation finds its meta-training."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinytrain_dist.backbones.card import read_card
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.foundation.redaction import redact
from tinytrain_dist.reporting.runs import RunResults

_ENTRY = "weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights by content hash; ``made_by`` is the run that trained them, where it is known."""

    path: Path
    hash: str
    made_by: str | None


def checkpoint_of(run: RunResults) -> Checkpoint | None:
    """Return the weights a simulation started from, where its file is still to be found.

    Looked for where the configuration says, and in the training runs beside the simulation.
    """
    wanted = run.record.get("identity", {}).get("checkpoint")
    if not wanted or run.folder.copy is not None:
        return None
    for record in sorted(run.path.resolve().parent.glob("*/run.json")):
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        weights = record.parent / _ENTRY
        if isinstance(found, dict) and found.get("weights_hash") == wanted and weights.is_file():
            return Checkpoint(path=weights, hash=wanted, made_by=record.parent.name)
    named = run.config.get("backbone")
    file = Path(str(named.get("weights") if isinstance(named, dict) else ""))
    return Checkpoint(path=file, hash=wanted, made_by=None) if file.is_file() else None


def checkpoint_artifact(wandb: Any, checkpoint: Checkpoint) -> Any:
    """Return the artifact of a checkpoint: the same for the run that makes it and the runs that use it."""
    metadata = {"hash": checkpoint.hash, "card": _card(checkpoint.path)}
    artifact = wandb.Artifact(f"checkpoint-{checkpoint.hash}", type="model", metadata=metadata)
    artifact.add_file(str(checkpoint.path), _ENTRY, policy="immutable", skip_cache=True)
    return artifact


def _card(path: Path) -> Any:
    """Return a checkpoint's card as JSON values, None where the file has none."""
    try:
        return redact(read_card(path).model_dump(mode="json"))
    except CheckpointError:
        return None


def use_artifact(writer: Any, artifact: Any) -> None:
    """Record that the run used ``artifact``. The client refuses that offline, though its log can say it."""
    if not writer.settings._offline:
        writer.use_artifact(artifact)
        return
    try:
        writer._log_artifact(artifact, is_user_created=True, use_after_commit=True)  # what use_artifact does online
    except (AttributeError, TypeError):  # another version of the client: better an output than nothing
        writer.log_artifact(artifact)


def results_artifact(wandb: Any, run: RunResults) -> Any:
    """Return the artifact of a run's result files."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", run.run_id)
    artifact = wandb.Artifact(f"results-{name}"[:128], type="results")
    for file in run.result_files():
        place = str(file.resolve().name) if file.is_symlink() else str(file.relative_to(run.path / "results"))
        artifact.add_file(str(file), place, policy="immutable", skip_cache=True)
    return artifact
