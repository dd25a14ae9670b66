"""Opens one W&B run, from the driver alone, and closes it. Whatever goes wrong here is logged, never raised.

Without a key the run is written offline below the run directory (``RUN/wandb``; ``wandb sync`` sends it later).
Nothing is asked on the terminal, and no code, command line, console output, host or package list is recorded.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal

from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.redaction import redact_text

Fill = Callable[[Any, Any], int | None]
"""Writes the content with the client's module and its run; returns the exit code the run ends with (None: 0)."""
Mode = Literal["auto", "online", "offline", "disabled"]
Writing = Literal["online", "offline"]
MODES: tuple[Mode, ...] = ("auto", "online", "offline", "disabled")
PROJECT = "tinytrain-dist"
CONNECT_S, FINISH_S = 30, 300
_LOG = logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One W&B run: where it belongs, what it says of itself, and ``fill``, which writes its content.

    ``run_id`` and ``created`` decide its id: a run that is resumed continues the W&B run it began. ``given_up`` is set
    once nobody waits for it any more: then nothing else is tried, or said.
    """

    folder: Path
    run_id: str
    created: str
    job_type: str
    group: str
    tags: Sequence[str]
    config: dict[str, Any]
    fill: Fill
    project: str = PROJECT
    entity: str | None = None
    given_up: Event = field(default_factory=Event)

    @property
    def wandb_id(self) -> str:
        """Return the id of the W&B run: the run's own, made safe, and a hash that tells two runs of one name apart."""
        plain = re.sub(r"[^A-Za-z0-9_-]", "-", self.run_id)[:64]
        return f"{plain}-{content_hash([self.run_id, self.created], length=8)}"


def write_entry(entry: Entry, mode: Mode) -> Path | None:
    """Write ``entry``; returns the folder of the W&B run, or None where nothing could be written (which is logged).

    Online, a server that cannot be reached, refuses the key or limits the rate leaves an offline copy with the same
    id: ``wandb sync`` sends it later.
    """
    assert mode in MODES, mode
    chosen = resolve_mode(mode)
    if chosen == "disabled":
        return None
    try:
        with _kept_inside(entry.folder):
            return _write(entry, chosen)
    except Exception as exc:  # a listener cannot fail a run: the wandb client raises many kinds
        if not entry.given_up.is_set():
            _LOG.warning("W&B: not written: %s", redact_text(f"{type(exc).__name__}: {exc}"))
            _let_go()
        return None


def give_up(entry: Entry) -> None:
    """Wait no longer for an entry that another thread writes: end the client's process, which would hold up the exit.

    What it has not written by then is lost to this W&B run; results and training are not touched.
    """
    entry.given_up.set()
    setup = sys.modules.get("wandb.sdk.wandb_setup")
    found: Any = getattr(setup, "_singleton", None)
    for name in ("_connection", "_proc", "_process"):  # no public way leads there; another version's may not either
        found = getattr(found, name, None)
    if found is not None:
        found.kill()
        _let_go()


def resolve_mode(mode: Mode) -> Literal["disabled"] | Writing:
    """Return ``mode``, with ``auto`` decided: WANDB_MODE if set to offline or disabled, else by the key."""
    if mode != "auto":
        return mode
    asked = os.environ.get("WANDB_MODE", "")
    if asked in ("offline", "disabled"):
        return "disabled" if asked == "disabled" else "offline"
    return "online" if os.environ.get("WANDB_API_KEY") or _in_netrc() else "offline"


def _in_netrc() -> bool:
    """Return whether the client would find a key in the netrc file (it knows the names of its servers)."""
    try:
        import wandb
        from wandb.sdk.lib.wbauth import read_netrc_auth

        server = os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url
        return bool(read_netrc_auth(host=server))
    except Exception as exc:  # not a public function of the client: without it, offline is the safe answer
        _LOG.warning("W&B: the netrc file cannot be used (%s)", type(exc).__name__)
        return False


_changing = Lock()
_kept: list[dict[str, str]] = []
_found: dict[str, str | None] = {}
"""What the environment said before the first of the blocks that are open now."""


@contextmanager
def _kept_inside(folder: Path) -> Iterator[None]:
    """Make the client stage and cache its files below the run directory instead of the home folder.

    Blocks of several threads may overlap and end in any order: the latest that is open counts.
    """
    ours = {"WANDB_DATA_DIR": str(folder / "wandb" / "data"), "WANDB_CACHE_DIR": str(folder / "wandb" / "cache")}
    with _changing:
        if not _kept:
            _found.update({name: os.environ.get(name) for name in ours})
        _kept.append(ours)
        _set_environment(ours)
    try:
        yield
    finally:
        with _changing:
            del _kept[next(place for place, other in enumerate(_kept) if other is ours)]
            _set_environment(_kept[-1] if _kept else _found)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _write(entry: Entry, mode: Writing) -> Path:
    try:
        return _write_once(entry, mode)
    except Exception as exc:  # unreachable, wrong key, rate limited: an offline copy is kept
        if mode != "online" or entry.given_up.is_set():
            raise
        _LOG.warning("W&B: online failed (%s); an offline copy is kept", redact_text(f"{type(exc).__name__}: {exc}"))
        _let_go()
        return _write_once(entry, "offline")


def _let_go() -> None:
    """End the client's own process: it holds the id of the run that failed, and complains at the exit if it is dead."""
    with suppress(Exception, SystemExit):  # it leaves with the exit code of that process
        import wandb

        wandb.teardown(exit_code=1)


def _write_once(entry: Entry, mode: Writing) -> Path:
    import wandb

    if entry.given_up.is_set():
        raise TimeoutError("nobody waits for it any more")
    writer = wandb.init(
        project=entry.project,
        entity=entry.entity,
        group=redact_text(entry.group),
        job_type=entry.job_type,
        name=entry.run_id,
        id=entry.wandb_id,
        resume="allow" if mode == "online" else None,
        tags=list(entry.tags),
        config=entry.config,
        mode=mode,
        dir=str(entry.folder),
        save_code=False,
        reinit="create_new",
        settings=_settings(wandb),
    )
    folder, exit_code = Path(writer.settings.sync_dir), 1
    try:
        exit_code = entry.fill(wandb, writer) or 0
    finally:
        writer.finish(exit_code=exit_code)
    return folder


def _settings(wandb: Any) -> Any:
    return wandb.Settings(
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        console="off",
        silent=True,
        symlink=False,
        host="",
        username="",
        program="",
        init_timeout=CONNECT_S,
        login_timeout=CONNECT_S,
        finish_timeout=FINISH_S,
        x_graphql_timeout_seconds=CONNECT_S,
        x_graphql_retry_max=3,
        x_graphql_retry_wait_min_seconds=1,
        x_graphql_retry_wait_max_seconds=2,
        x_file_stream_retry_max=3,
        x_file_transfer_retry_max=3,
    )
