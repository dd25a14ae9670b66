"""Opens torch's zip files without ever running what a pickle inside asks for."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray

from tinytrain_dist.foundation.errors import CheckpointError

MAX_UNPACKED_BYTES = 256 * 1024**2

# what rebuilds a NumPy array or scalar, under the names NumPy 1 and NumPy 2 pickle them by; nothing else
_ALLOWED: list[Any] = [
    *((multiarray._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in ("i1", "u1", "i2", "i4", "i8", "f4", "f8")),
]


def load_restricted(path: Path) -> Any:
    """Return plain containers, tensors and NumPy arrays from a torch zip file; anything else is refused."""
    _check_archive(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # a damaged pickle may raise anything; nothing of it has run
        reason = str(exc).splitlines()[-1] if str(exc) else type(exc).__name__
        for line in str(exc).splitlines():
            if "Unsupported" in line:
                reason = line.strip()
        raise CheckpointError(f"{path}: refused by the restricted loader: {reason}") from exc


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (OSError, zipfile.BadZipFile) as exc:
        raise CheckpointError(f"{path}: is no torch zip file: {exc}") from exc
    if unpacked > MAX_UNPACKED_BYTES:
        raise CheckpointError(f"{path}: unpacks to {unpacked} bytes; allowed {MAX_UNPACKED_BYTES}")
