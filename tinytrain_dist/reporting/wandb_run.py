"""One W&B run per simulation, written by the driver alone. Whatever goes wrong here is logged, never raised.

Without a key the run is written offline below the run directory (``RUN/wandb``; ``wandb sync`` sends it later).
Nothing is asked on the terminal, and no code, command line, console output, host or package list is recorded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.hashing import content_hash
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.redaction import redact_text
from tinytrain_dist.reporting import wandb_content as content
from tinytrain_dist.reporting.page import PAGE_NAME, write_page
from tinytrain_dist.reporting.runs import RunResults

Mode = Literal["auto", "online", "offline", "disabled"]
Writing = Literal["online", "offline"]
MODES: tuple[Mode, ...] = ("auto", "online", "offline", "disabled")
PROJECT = "tinytrain-dist"
_LOG = logger(__name__)


def log_to_wandb(
    run: RunResults, *, mode: Mode = "auto", project: str = PROJECT, group: str | None = None, entity: str | None = None
) -> Path | None:
    """Write the run's configuration, headline figures, tables, histograms, results and page as one W&B run.

    Parameters
    ----------
    mode
        ``auto`` is online if a key is in WANDB_API_KEY or the netrc file, else offline.
    project, group, entity
        Where the run appears; ``group`` is by default the configuration's experiment, ``entity`` the key's own.

    Returns
    -------
    Path or None
        The folder of the W&B run, or None where nothing could be written (the reason is logged).
    """
    assert mode in MODES, mode
    chosen = resolve_mode(mode)
    if chosen == "disabled":
        return None
    try:
        with _kept_inside(run.path):
            return _write(run, chosen, _Place(project, group or content.group(run), entity))
    except Exception as exc:  # a listener cannot fail a run: the wandb client raises many kinds
        _LOG.warning("W&B: not written: %s", redact_text(f"{type(exc).__name__}: {exc}"))
        return None


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


@contextmanager
def _kept_inside(folder: Path) -> Iterator[None]:
    """Make the client stage and cache its files below the run directory instead of the home folder."""
    ours = {"WANDB_DATA_DIR": str(folder / "wandb" / "data"), "WANDB_CACHE_DIR": str(folder / "wandb" / "cache")}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class _Place:
    """Where a W&B run appears."""

    project: str
    group: str
    entity: str | None


def _write(run: RunResults, mode: Writing, place: _Place) -> Path:
    try:
        return _write_once(run, mode, place)
    except Exception as exc:  # unreachable, wrong key, rate limited: an offline copy is kept
        if mode != "online":
            raise
        _LOG.warning("W&B: online failed (%s); an offline copy is kept", redact_text(f"{type(exc).__name__}: {exc}"))
        return _write_once(run, "offline", place, copy="offline copy")


def _write_once(run: RunResults, mode: Writing, place: _Place, *, copy: str = "") -> Path:
    import wandb

    writer = wandb.init(
        project=place.project,
        entity=place.entity,
        group=place.group,
        job_type="simulate",
        name=run.run_id,
        id=content_hash([run.run_id, run.record.get("created"), copy]),  # the client still holds a failed one's id
        resume="allow" if mode == "online" else None,
        tags=content.tags(run),
        config=content.config(run),
        mode=mode,
        dir=str(run.path),
        save_code=False,
        reinit="create_new",
        settings=_settings(wandb),
    )
    folder, exit_code = Path(writer.settings.sync_dir), 1
    try:
        _fill(wandb, writer, run)
        exit_code = 0
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
        init_timeout=30,
        finish_timeout=300,
        x_graphql_retry_max=3,
        x_graphql_retry_wait_min_seconds=1,
        x_graphql_retry_wait_max_seconds=2,
        x_file_stream_retry_max=3,
        x_file_transfer_retry_max=3,
    )


def _fill(wandb: Any, writer: Any, run: RunResults) -> None:
    writer.summary.update(content.summary(run))
    tables = {f"devices/{name}": wandb.Table(columns=c, data=d) for name, (c, d) in content.device_tables(run).items()}
    sample, total, columns = content.task_sample(run)
    writer.summary.update({"task_sample_rows": len(sample), "task_sample_of": total})
    shapes = {
        f"accuracy/{name}": wandb.Histogram(np_histogram=(counts, edges))
        for name, counts, edges in content.accuracy_histograms(run)
    }
    page = _page(run)
    html = {"report": wandb.Html(str(page), inject=False)} if page else {}
    writer.log(tables | {"task_sample": wandb.Table(columns=columns, data=sample)} | shapes | html)
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", run.run_id)
    artifact = wandb.Artifact(f"results-{name}", type="results")
    for file in run.result_files():
        artifact.add_file(str(file), str(file.relative_to(run.path / "results")), policy="immutable", skip_cache=True)
    writer.log_artifact(artifact)


def _page(run: RunResults) -> Path | None:
    page = run.path / PAGE_NAME
    try:
        return page if page.is_file() else write_page(run)
    except StorageError as exc:
        _LOG.warning("W&B: the page is left out: %s", exc)
        return None
