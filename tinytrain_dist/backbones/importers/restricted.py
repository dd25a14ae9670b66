"""Opens torch's files (zip, or the plain ones of PyTorch before 1.6) without running what a pickle inside asks for."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from tinytrain_dist.foundation.array_pickles import STAND_INS, StoredArray, StoredDtype, plain
from tinytrain_dist.foundation.errors import CheckpointError

MAX_UNPACKED_BYTES = 256 * 1024**2
_PLAIN_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How every file of ``torch.save`` before PyTorch 1.6 starts: a pickled constant."""

_ALLOWED: list[Any] = [
    *((found, f"{module}.{name}") for (module, name), found in STAND_INS.items()),
    *((kind, f"{kind.__module__}.{kind.__name__}") for kind in (StoredArray, StoredDtype)),  # whose state may be set
]


def load_restricted(path: Path) -> Any:
    """Return plain containers, tensors and NumPy arrays from a torch file; anything else is refused."""
    try:
        size = path.stat().st_size
        if size > MAX_UNPACKED_BYTES:
            raise CheckpointError(f"{path}: {size} bytes; allowed {MAX_UNPACKED_BYTES}")
        return unpickle_restricted(path.read_bytes(), where=str(path))
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def unpickle_restricted(data: bytes, *, where: str) -> Any:
    """Return what ``load_restricted`` returns, from a torch file's bytes; ``where`` names it in errors."""
    if not data.startswith(_PLAIN_MAGIC):
        _check_archive(data, where)
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return plain(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except Exception as exc:  # a damaged pickle may raise anything; nothing of it has run
        inner = exc.__context__ if isinstance(exc.__context__, pickle.UnpicklingError) else exc  # torch adds advice
        lines = [line.strip() for line in str(inner).splitlines()] or [type(exc).__name__]
        reason = next((line for line in lines if "Unsupported" in line), lines[-1])
        raise CheckpointError(f"{where}: refused by the restricted loader: {reason}") from exc


def _check_archive(data: bytes, where: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as exc:
        raise CheckpointError(f"{where}: is no torch file: {exc}") from exc
    if unpacked > MAX_UNPACKED_BYTES:
        raise CheckpointError(f"{where}: unpacks to {unpacked} bytes; allowed {MAX_UNPACKED_BYTES}")
