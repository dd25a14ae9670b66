"""The card of a checkpoint: what the weights are and where they come from. Read without torch, before any tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinytrain_dist.foundation.errors import CheckpointError

Initialization = Literal["pretrained", "meta_trained", "random"]

MAX_FILE_BYTES = 512 * 1024**2
MAX_HEADER_BYTES = 1024**2
CARD_KEY = "tinytrain_card"
LEARNER_STATE = ".learner.safetensors"
"""Ending of what a training keeps to resume: optimizer and progress, no weights of a backbone."""
_LENGTH_BYTES = 8
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")  # bare pickle protocol 2 or later; torch's zip around one


class Accuracy(BaseModel):
    """Mean accuracy over episodes (a share) and half the width of its 95 % t-interval."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    mean: float
    half_width: float
    num_episodes: int


class Evaluation(BaseModel):
    """Figures of target domains that no training saw, by nearest prototype and without adaptation.

    Attributes
    ----------
    protocol
        Way, shot, query, pixels, distance, seed.
    domains
        Content hash of each domain.
    accuracy
        By domain, then by what was measured: ``weights`` (the checkpoint's), ``random``, ``raw_pixels`` and, where it
        was at hand, ``teacher``. All on the same episodes.
    verdicts
        Targets with what was reached, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    protocol: str
    domains: dict[str, str]
    accuracy: dict[str, dict[str, Accuracy]]
    verdicts: tuple[str, ...] = ()


class CheckpointCard(BaseModel):
    """Provenance of a checkpoint, stored as JSON in the safetensors header.

    The first three are filled by ``save_checkpoint``; a card on its way in may leave them empty.

    Attributes
    ----------
    backbone, architecture_hash
        Name and ``LayerGraph.architecture_hash`` of the network the tensors belong to.
    content_hash
        ``checkpoint_hash`` of the tensors: the ``checkpoint`` key of result rows.
    initialization
        ``pretrained`` (supervised), ``meta_trained`` (episodes) or ``random``.
    resolution
        Pixels of the images the weights were trained on.
    command, data, metrics
        Command line that made the weights, what they were trained on, figures measured on them.
    licence, source
        Licence and origin of the weights.
    teacher
        Network that was imitated, with its licence; empty: none.
    initial
        Content hash of the weights the training started from; empty: drawn from the seed.
    hours
        Wall time of the trainings that led here, as far as checkpoints recorded it; None: not a training's.
    machine
        What it was made on.
    evaluation
        ``tinytrain weights evaluate``'s figures.
    notes
        What else a reader should know, such as a target that was missed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    backbone: str = ""
    architecture_hash: str = ""
    content_hash: str = ""
    initialization: Initialization
    resolution: int = Field(gt=0)
    command: str = ""
    data: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    licence: str = ""
    source: str = ""
    teacher: str = ""
    initial: str = ""
    hours: float | None = None
    machine: str = ""
    evaluation: Evaluation | None = None
    notes: str = ""


def checkpoint_files(root: Path) -> Iterator[Path]:
    """Yield the checkpoints of a run root: beside the runs, in them and in their ``checkpoints/``.

    Not deeper: a large run has a million files. What a training keeps to resume is no checkpoint.
    """
    for pattern in ("*.safetensors", "*/*.safetensors", "*/checkpoints/*.safetensors"):
        yield from sorted(path for path in root.glob(pattern) if not path.name.endswith(LEARNER_STATE))


def read_card(path: Path) -> CheckpointCard:
    """Return the card of a checkpoint; reads the header only. Raises ``CheckpointError`` naming the file."""
    return card_of(read_header(path), path)


def read_header(path: Path) -> dict[str, Any]:
    """Return the safetensors header of ``path``, its length bounded before it is read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(_LENGTH_BYTES)
            length = _header_length(start, size, path)
            return _parse_header(stream.read(length), path)
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _header_length(start: bytes, size: int, path: Path) -> int:
    if size > MAX_FILE_BYTES:
        raise CheckpointError(f"{path}: {size} bytes; a checkpoint may have at most {MAX_FILE_BYTES}")
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH_BYTES or length == 0:
        raise CheckpointError(f"{path}: is empty or truncated; expected a safetensors file")
    # read as a length, these starts are far beyond the bound: a real header is never mistaken for a pickle
    if length > MAX_HEADER_BYTES and start.startswith(_PICKLE_STARTS):
        raise CheckpointError(
            f"{path}: is a pickle or torch file, which could run code; allowed: safetensors "
            f"('tinytrain weights import' converts known formats)"
        )
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: header of {length} bytes; allowed at most {MAX_HEADER_BYTES} (safetensors)")
    if length > size - _LENGTH_BYTES:
        raise CheckpointError(f"{path}: truncated: {size} bytes, but the header alone takes {length}")
    return length


def _parse_header(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path}: the header is no safetensors header: {exc}") from exc
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no safetensors header: found {type(header).__name__}")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def card_of(header: dict[str, Any], path: Path) -> CheckpointCard:
    """Return the card inside a header that ``read_header`` gave."""
    metadata = header.get("__metadata__")
    text = metadata.get(CARD_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise CheckpointError(f"{path}: no card ({CARD_KEY}) in the header; it was not written by save_checkpoint")
    try:
        return CheckpointCard.model_validate_json(text)
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in exc.errors())
        raise CheckpointError(f"{path}: card: {problems}") from exc
