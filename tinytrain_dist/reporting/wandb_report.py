"""A W&B Report on how accuracy spreads across domains: saved by whoever is logged in, else kept as a file.

Needs the optional package ``wandb-workspaces`` (``pip install 'tinytrain-dist[wandb-report]'``).
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinytrain_dist.foundation.logs import logger
from tinytrain_dist.foundation.paths import atomic_write
from tinytrain_dist.foundation.redaction import redact, redact_text
from tinytrain_dist.reporting.comparison import ComparisonRow, comparison_table
from tinytrain_dist.reporting.distributions import histograms
from tinytrain_dist.reporting.formatting import one_line, percent_interval
from tinytrain_dist.reporting.headlines import headlines
from tinytrain_dist.reporting.labels import adaptation_key, adaptation_labels
from tinytrain_dist.reporting.notices import notices
from tinytrain_dist.reporting.runs import RunResults
from tinytrain_dist.reporting.wandb_session import PROJECT

REPORT_FILE = "wandb_report.json"
HOW_TO_PUSH = "log in ('wandb login') and run 'tinytrain report RUN --wandb' again: it saves this report"
_BARS = " ▁▂▃▄▅▆▇█"
_LOG = logger(__name__)


def write_report(
    run: RunResults, *, logged_in: bool, project: str = PROJECT, entity: str | None = None
) -> str | Path | None:
    """Save the report of a run and return its address, or write it as a file into the run directory.

    Returns
    -------
    str, Path or None
        The address of the saved report; the file where nobody is logged in or saving failed; None where the optional
        package is missing or no file can be written. The reason is logged, never raised.
    """
    if find_spec("wandb_workspaces") is None:
        _LOG.warning("W&B: no report without the extra: pip install 'tinytrain-dist[wandb-report]'")
        return None
    if logged_in:
        try:
            return _saved(run, project, entity)
        except Exception as exc:  # a listener cannot fail a run
            _LOG.warning("W&B: the report is not saved: %s", redact_text(f"{type(exc).__name__}: {exc}"))
    try:
        return _as_file(run, project, entity)
    except Exception as exc:  # as above
        _LOG.warning("W&B: the report is not written: %s", redact_text(f"{type(exc).__name__}: {exc}"))
        return None


def _saved(run: RunResults, project: str, entity: str | None) -> str:
    import wandb
    import wandb_workspaces.reports.v2 as wr

    owner = entity or str(wandb.Api(timeout=30).default_entity)
    report = wr.Report(
        project=project, entity=owner, title=title(run), description=description(run),
        blocks=blocks(wr, run, runset=wr.Runset(entity=owner, project=project, name=run.run_id)),
    )  # fmt: skip
    report.save()
    return str(report.url)


def _as_file(run: RunResults, project: str, entity: str | None) -> Path:
    """Write what saving would send: the report's specification, with how to push it."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.reports.v2 import internal

    models = [block._to_model() for block in blocks(wr, run, runset=wr.Runset(name=run.run_id))]
    spec = internal.Spec(blocks=models).model_dump(mode="json", by_alias=True, exclude_none=True)
    document = {
        "how_to_push": HOW_TO_PUSH, "project": project, "entity": entity, "displayName": title(run),
        "description": description(run), "spec": spec,
    }  # fmt: skip
    target = run.path / REPORT_FILE
    atomic_write(target, json.dumps(redact(document, by_name=False), indent=1).encode())
    return target


def title(run: RunResults) -> str:
    """Return the report's title."""
    return redact_text(one_line(f"Accuracy across domains: {run.run_id}", limit=128))


def description(run: RunResults) -> str:
    """Return what the report is made of."""
    what = "accuracy per domain and method, each task averaged over its devices"
    return redact_text(f"{run.num_rows:,} rows of {one_line(run.run_id)}; {what}.")


def blocks(wr: Any, run: RunResults, *, runset: Any) -> list[Any]:
    """Return the report's blocks: sentences, the table by method and domain, the distributions, charts of the run."""
    by_domain = comparison_table(run, by="domain")
    by_device = comparison_table(run, by="device")
    sentences = headlines(run, by_device, comparison_table(run, by="method"))
    labels = adaptation_labels(by_domain)
    keys = [f"domain/{row.domain}/{labels[adaptation_key(row)]}/accuracy_mean" for row in by_domain]
    return [
        wr.H1(text="In short"),
        wr.MarkdownBlock(text="\n".join(f"- {_plain(text)}" for text in [*sentences, *notices(by_device)])),
        wr.H1(text="Accuracy by method and domain"),
        wr.MarkdownBlock(text=accuracy_markdown(by_domain)),
        wr.H1(text="How accuracy spreads over the tasks of each domain"),
        wr.MarkdownBlock(text=spread_markdown(run, by_domain)),
        wr.PanelGrid(runsets=[runset], panels=[wr.BarPlot(title="Mean accuracy (share)", metrics=keys)]),
    ]


def accuracy_markdown(rows: list[ComparisonRow]) -> str:
    """Return the mean accuracy in per cent with half of its 95 % interval, methods by domains."""
    labels, domains = adaptation_labels(rows), sorted({str(row.domain) for row in rows})
    found = {(adaptation_key(row), row.domain): row for row in rows}
    lines = [
        [_plain(label)]
        + [percent_interval(r.accuracy_mean, r.accuracy_high) if (r := found.get((key, d))) else "-" for d in domains]
        for key, label in labels.items()
    ]
    return "Per cent, mean over tasks ± half of the 95 % interval.\n\n" + _table(["method", *domains], lines)


def spread_markdown(run: RunResults, rows: list[ComparisonRow]) -> str:
    """Return one row of bars per domain and method: how many tasks reach which accuracy, from 0 to 100 %."""
    labels = adaptation_labels(rows)
    lines = [
        [_plain(item.domain), _plain(labels[item.key]), str(sum(item.counts)), f"`{bars(item.counts)}`"]
        for item in histograms(run)
    ]
    return _table(["domain", "method", "tasks", "0 % to 100 %"], lines)


def bars(counts: tuple[int, ...]) -> str:
    """Return one character per bin, its height relative to the largest; a bin with a task is never empty."""
    most = max(counts) or 1
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)


def _table(columns: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(columns)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in ([_plain(c) for c in columns], rule, *lines))


def _plain(text: str) -> str:
    """Return text that Markdown does not read as anything else."""
    clean = redact_text(one_line(text, limit=2000))
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in clean)
