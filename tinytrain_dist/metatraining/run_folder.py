"""The folder of a training: who holds it, what decides its result, whether it is finished."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinytrain_dist.foundation.errors import RunLockedError, StorageError
from tinytrain_dist.foundation.hashing import canonical_json, content_hash
from tinytrain_dist.foundation.paths import atomic_write, inside

_PREFIXES = {"meta_train": "meta", "pretrain": "pretrain"}
RUN_FILE, SUCCESS_FILE, LOCK_FILE = "run.json", "_SUCCESS", ".lock"
PICTURES = "episodes"
"""Folder with pictures of sample episodes."""


class RunFolder:
    """``<root>/<run_id>/`` with ``run.json``, ``checkpoints/``, ``curves.parquet``, ``weights.safetensors``.

    Parameters
    ----------
    identity
        Everything that decides the final weights, JSON-ready.
    run_id
        None: named after the hash of ``identity``.
    kind
        ``meta_train`` or ``pretrain``.
    """

    def __init__(
        self, root: Path, *, identity: Mapping[str, Any], run_id: str | None, kind: str = "meta_train"
    ) -> None:
        self.kind = kind
        self.identity = json.loads(canonical_json(dict(identity)))
        self.identity_hash = content_hash(self.identity)
        self.run_id = run_id or f"{_PREFIXES[kind]}-{identity['backbone']}-{self.identity_hash[:12]}"
        self.path = inside(root, self.run_id, what="run id")

    @property
    def weights(self) -> Path:
        """The final checkpoint."""
        return self.path / "weights.safetensors"

    @property
    def curves(self) -> Path:
        """One row per round."""
        return self.path / "curves.parquet"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints to resume from."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the run ended well."""
        return (self.path / SUCCESS_FILE).exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder; ``RunLockedError`` names a living holder. A dead process holds nothing."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stream = (self.path / LOCK_FILE).open("a+")
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                raise RunLockedError(f"{self.path} is held by {stream.read().strip() or 'another process'}") from None
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            stream.flush()
            self._check_identity()
            yield

    def _check_identity(self) -> None:
        found = self.read().get("identity", self.identity)
        keys = sorted(key for key in {*found, *self.identity} if found.get(key) != self.identity.get(key))
        if keys:
            differences = "; ".join(f"{key}: {found.get(key)!r} -> {self.identity.get(key)!r}" for key in keys)
            raise RunLockedError(
                f"{self.path} holds a run with other settings ({differences}); choose another run id, "
                "or none for one of its own"
            )

    def read(self) -> dict[str, Any]:
        """Return ``run.json``; empty if there is none."""
        path = self.path / RUN_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise StorageError(f"{path}: expected a mapping, found {type(values).__name__}")
        return values

    def write(self, **values: Any) -> None:
        """Write ``run.json``: the identity and ``values``."""
        text = json.dumps({"kind": self.kind, "identity": self.identity, **values}, indent=2, sort_keys=True)
        atomic_write(self.path / RUN_FILE, text.encode())

    def mark_finished(self) -> None:
        """Write the success marker, the last file of a run."""
        atomic_write(self.path / SUCCESS_FILE, b"")
