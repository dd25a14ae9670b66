"""One W&B run per simulation: configuration, headline figures, tables, histograms, page, results and lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinytrain_dist.foundation.errors import StorageError
from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.reporting import wandb_content as content
from tinytrain_dist.reporting.page import PAGE_NAME, write_page
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.wandb_artifacts import (
    checkpoint_artifact,
    checkpoint_of,
    results_artifact,
    use_artifact,
)
from tinytrain_dist.reporting.wandb_session import PROJECT, Entry, Mode, write_entry

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

    def fill(wandb: Any, writer: Any) -> None:
        _fill(wandb, writer, run)

    entry = Entry(
        folder=run.path,
        run_id=run.run_id,
        created=str(run.record.get("created")),
        job_type="simulate",
        group=group or content.group(run),
        tags=content.tags(run),
        config=content.config(run),
        fill=fill,
        project=project,
        entity=entity,
    )
    return write_entry(entry, mode)


def _fill(wandb: Any, writer: Any, run: RunResults) -> None:
    writer.summary.update(content.summary(run))
    tables = {name: wandb.Table(columns=list(c), data=d) for name, (c, d) in content.tables(run).items()}
    sample, total, columns = content.task_sample(run)
    writer.summary.update({"task_sample_rows": len(sample), "task_sample_of": total})
    shapes = {
        f"accuracy/{name}": wandb.Histogram(np_histogram=(counts, edges))
        for name, counts, edges in content.accuracy_histograms(run)
    }
    page = _page(run)
    html = {"report": wandb.Html(str(page), inject=False)} if page else {}
    writer.log(tables | {"task_sample": wandb.Table(columns=columns, data=sample)} | shapes | html)
    checkpoint = checkpoint_of(run)
    if checkpoint is not None:
        writer.config.update({"checkpoint": {"hash": checkpoint.hash, "made_by": checkpoint.made_by}})
        use_artifact(writer, checkpoint_artifact(wandb, checkpoint))
    writer.log_artifact(results_artifact(wandb, run))


def _page(run: RunResults) -> Path | None:
    page = run.path / PAGE_NAME
    try:
        return page if page.is_file() else write_page(run)
    except StorageError as exc:
        _LOG.warning("W&B: the page is left out: %s", exc)
        return None
