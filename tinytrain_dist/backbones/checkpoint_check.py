"""``doctor``: which checkpoints lie below the run root, and which of them cannot be used."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from tinytrain_dist.backbones.card import checkpoint_files
from tinytrain_dist.backbones.checkpoint import load_checkpoint
from tinytrain_dist.foundation.diagnosis import Diagnosis, ok, warning
from tinytrain_dist.foundation.errors import CheckpointError
from tinytrain_dist.foundation.paths import local_path

MAX_READ = 50


def diagnose_checkpoints(root: str) -> Iterator[Diagnosis]:
    """Read up to ``MAX_READ`` checkpoints below the run root completely; a damaged one is a warning."""
    if "://" in root:
        return
    folder = local_path(root, what="run root")
    paths = list(itertools.islice(checkpoint_files(folder), MAX_READ))
    damaged = [error for path in paths if (error := _error_of(path))]
    for error in damaged:
        yield warning("weights", error, "remove it, and make it again with the command in its card or run.json")
    if paths:
        yield ok("weights", f"{len(paths) - len(damaged)} checkpoints below {folder} can be used")
    else:
        advice = "backbone.weights=meta_train makes one; 'tinytrain weights import' converts published ones"
        yield ok("weights", f"no checkpoint below {folder}", advice)


def _error_of(path: Path) -> str:
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return ""
