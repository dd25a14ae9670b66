"""``doctor``: can results be kept where runs go? Nothing is left behind."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tinytrain_dist.foundation.diagnosis import Diagnosis, ok, problem, warning
from tinytrain_dist.foundation.errors import ExitCode, TinyTrainError
from tinytrain_dist.foundation.paths import local_path, sync_folder
from tinytrain_dist.foundation.storage.opening import open_storage

LITTLE_BYTES, TOO_LITTLE_BYTES = 1 << 30, 100 << 20
SLOW_SYNC_S = 0.25
_SUBJECT = "storage"


def diagnose_storage(root: str) -> Iterator[Diagnosis]:
    """Yield lines about the run root: a folder (free space, writing, syncing) or an object store (one object)."""
    if "://" in root and not root.startswith("file://"):
        yield _object_store(root)
        return
    folder = local_path(root, what="run root")
    there = _first_that_exists(folder)
    yield _space(folder, there)
    yield _writing(folder, there)


def _first_that_exists(folder: Path) -> Path:
    """Return the folder in which the first missing part would be made."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _space(folder: Path, there: Path) -> Diagnosis:
    free = shutil.disk_usage(there).free
    found = f"{free / 2**30:.1f} GiB free at {folder}"
    if free < TOO_LITTLE_BYTES:
        return problem("disk", found, "make room, or set run.root to another disk", exit_code=ExitCode.STORAGE)
    if free < LITTLE_BYTES:
        return warning("disk", found, "a large run needs more (about 1 KiB a row): set run.root to another disk")
    return ok("disk", found)


def _writing(folder: Path, there: Path) -> Diagnosis:
    if not there.is_dir():
        return problem(_SUBJECT, f"{there} is no folder", "set run.root to a folder", exit_code=ExitCode.STORAGE)
    try:
        seconds = _write_and_sync(there)
    except OSError as error:
        found = f"{there} cannot be written: {error.strerror or error}"
        return problem(_SUBJECT, found, "set run.root to a folder you may write to", exit_code=ExitCode.STORAGE)
    found = f"{folder} is writable, a synced write takes {1e3 * seconds:.0f} ms"
    if seconds > SLOW_SYNC_S:
        return warning(_SUBJECT, found, "slow: set run.root to a local disk, or dispatch.chunk_seconds higher")
    return ok(_SUBJECT, found)


def _write_and_sync(folder: Path) -> float:
    start = time.perf_counter()
    handle, name = tempfile.mkstemp(dir=folder, prefix=".doctor.", suffix=".tmp")
    renamed = Path(f"{name}.renamed")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(bytes(4096))
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).rename(renamed)
        sync_folder(folder)
    finally:
        Path(name).unlink(missing_ok=True)
        renamed.unlink(missing_ok=True)
    return time.perf_counter() - start


def _object_store(root: str) -> Diagnosis:
    try:
        storage, path = open_storage(root), f"doctor-{secrets.token_hex(8)}"
        created = storage.create(path, b"doctor")
        again = storage.create(path, b"doctor")
        storage.remove(path)
    except TinyTrainError as error:
        advice = "check the location, the network and the credentials in the environment"
        return problem(_SUBJECT, str(error), advice, exit_code=error.exit_code)
    if not created or again:
        advice = "use a store with conditional puts (If-None-Match): one driver per run cannot be ensured here"
        return problem(_SUBJECT, f"{root} writes over what is there", advice, exit_code=ExitCode.STORAGE)
    return ok(_SUBJECT, f"{root} can be written and refuses to overwrite")
